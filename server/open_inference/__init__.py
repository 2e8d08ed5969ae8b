"""The Open Inference Protocol on both wires: what KServe's and Triton's clients speak.

Every model looks alike there: `image` in, `label`, `score` and `index` out. A request is read
(`tensors`), goes the one path of `server.classifier` (`inference`), and is answered by a door.
"""

from server.open_inference.inference import OpenInference
from server.open_inference.rest import open_inference_routes
from server.open_inference.servicer import OPEN_INFERENCE, add_open_inference

__all__ = ["OPEN_INFERENCE", "OpenInference", "add_open_inference", "open_inference_routes"]
