"""The Open Inference Protocol on both wires: what KServe's and Triton's clients speak.

Every model looks alike there: `image` in, `label`, `score` and `index` out. A request is read
(`tensors`), goes the one path of `server.classifier` (`inference`), and is answered by a door.
"""

from server.open_inference.grpc_door import OPEN_INFERENCE, add_open_inference
from server.open_inference.http_door import open_inference_routes
from server.open_inference.inference import OpenInference

__all__ = ["OPEN_INFERENCE", "OpenInference", "add_open_inference", "open_inference_routes"]
