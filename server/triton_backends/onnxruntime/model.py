"""Triton's `onnxruntime` backend in Python, for a Triton that has only its python backend.

It has the native backend's name and reads the same config.pbtxt, so that a version of the model
repository loads unchanged. Triton's dynamic batcher passes several requests at once; they share one
run of the session. Numeric tensors only, on the CPU.

Tensors cross by DLPack. The stub that runs this file was built for numpy 1: under numpy 2
`as_numpy()` gives wrong data, and `pb.Tensor(name, array)` answers empty outputs without an error.
"""

from __future__ import annotations

import ctypes
import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb

# The name means that the tensor has an owner who frees it. Capsules keep the pointer, not a copy.
_USED_DLTENSOR = b"used_dltensor"
_FATAL = 4  # ONNX Runtime's level of logging
_LOOK_EVERY_S = 0.2  # whether the requests were cancelled
_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
_set_capsule_name.restype = ctypes.c_int


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        model_path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        try:
            self._session = _open_session(model_path, config["parameters"])
        except Exception as error:  # onnxruntime has no common class
            raise pb.TritonModelException(f"model.onnx does not load: {error}") from error
        self._thread = ThreadPoolExecutor(1)
        _check_names("input", self._inputs, self._session.get_inputs())
        _check_names("output", self._outputs, self._session.get_outputs())

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response per request; if the batch fails, each request is retried alone."""
        try:
            return self._run(requests)
        except Exception as error:  # the instance must survive any error
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            return [pb.InferenceResponse(error=pb.TritonError(str(error)))]

    def _run(self, requests: list[Any]) -> list[Any]:
        fed = [[_array(request, name) for request in requests] for name in self._inputs]
        feed = {name: _joined(arrays) for name, arrays in zip(self._inputs, fed, strict=True)}
        requested = [set(request.requested_output_names()) for request in requests]
        names = [name for name in self._outputs if name in set.union(*requested)]
        outputs = self._compute(names, feed, requests)
        if len(requests) == 1:
            return [_response(dict(zip(names, outputs, strict=True)), requested[0])]
        ends = np.cumsum([len(array) for array in fed[0]])
        for name, output in zip(names, outputs, strict=True):
            if len(output) != ends[-1]:
                raise ValueError(f"output {name} has {len(output)} rows for {ends[-1]} of input")
        parts = [np.split(output, ends[:-1]) for output in outputs]
        return [
            _response(dict(zip(names, rows, strict=True)), asked)
            for rows, asked in zip(zip(*parts, strict=True), requested, strict=True)
        ]

    def _compute(
        self, names: list[str], feed: dict[str, npt.NDArray[Any]], requests: list[Any]
    ) -> list[npt.NDArray[Any]]:
        """Ends the computation, which may loop, when nobody waits for it any more."""
        options = ort.RunOptions()
        # What nobody requested, such as heat-maps, is not computed.
        options.only_execute_path_to_fetches = True
        options.log_severity_level = _FATAL  # errors are raised, and need not be printed too
        computing = self._thread.submit(self._session.run, names, feed, options)
        while not computing.done():
            wait([computing], timeout=_LOOK_EVERY_S)
            if not computing.done() and all(request.is_cancelled() for request in requests):
                options.terminate = True
        outputs: list[npt.NDArray[Any]] = computing.result()
        return outputs


def _response(outputs: dict[str, npt.NDArray[Any]], requested: set[str]) -> Any:
    tensors = [_tensor(name, array) for name, array in outputs.items() if name in requested]
    return pb.InferenceResponse(tensors)


def _open_session(model_path: Path, parameters: dict[str, Any]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # The native backend's parameter of that name; 0, the default: as many as the gateway's setting
    # says, and without a gateway a thread per core.
    threads = int(parameters.get("intra_op_thread_count", {}).get("string_value", "0"))
    options.intra_op_num_threads = threads or int(os.environ.get("CONVOY_INFERENCE_THREADS", "0"))
    # Threads that spin while they wait would take cores from the gateway beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])


def _check_names(kind: str, wanted: list[str], tensors: list[Any]) -> None:
    names = [tensor.name for tensor in tensors]
    if missing := sorted(set(wanted) - set(names)):
        raise pb.TritonModelException(
            f"model.onnx has no {kind} {', '.join(missing)}; it has {', '.join(names)}"
        )


def _array(request: Any, name: str) -> npt.NDArray[Any]:
    """The input in the memory shared with the server, without a copy."""
    array: npt.NDArray[Any] = np.from_dlpack(pb.get_input_tensor_by_name(request, name))
    return array


def _joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _tensor(name: str, array: npt.NDArray[Any]) -> Any:
    capsule = array.__dlpack__()
    tensor = pb.Tensor.from_dlpack(name, capsule)
    # The stub marks the consumed tensor by a name of its own, which numpy reads as not consumed.
    _set_capsule_name(capsule, _USED_DLTENSOR)
    return tensor
