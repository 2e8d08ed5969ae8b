"""One image by a client of the Open Inference Protocol: kserve.py localhost:8081 lenet5 IMAGE

Clients of KServe and Triton work unchanged; this is pip install 'tritonclient[grpc]'.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton


def main(server: str, model: str, path: str) -> None:
    image = triton.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([Path(path).read_bytes()], np.object_))
    with triton.InferenceServerClient(server) as client:
        try:
            result = client.infer(model, [image], parameters={"top_k": 3}, client_timeout=10)
        except triton.InferenceServerException as error:
            sys.exit(str(error))
    for label, score in zip(result.as_numpy("label")[0], result.as_numpy("score")[0], strict=True):
        print(label.decode(), f"{score:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
