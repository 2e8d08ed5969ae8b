"""The GPU, by its driver: what it is, and memory on it.

Through ctypes, since the driver is wherever a GPU can be used, and no CUDA package for Python need
be. Of several GPUs it is the first that the driver shows (CUDA_VISIBLE_DEVICES), as for TensorRT.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from export.errors import EngineError

FIRST = 0
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, in cuda.h

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gpu:
    name: str  # "NVIDIA H200"
    compute_capability: str  # "9.0"
    cuda: str  # the newest that the driver can run: "13.1"


def this_gpu() -> Gpu:
    """The GPU that engines are built for and run on.

    Raises:
        EngineError: the driver is not here, or does not answer.
    """
    ask("cuInit", 0)
    name = ctypes.create_string_buffer(256)
    ask("cuDeviceGetName", name, len(name), FIRST)
    major, minor = (
        _number("cuDeviceGetAttribute", attribute, FIRST)
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
    )
    cuda = _number("cuDriverGetVersion")  # 13010 is 13.1
    return Gpu(name.value.decode(), f"{major}.{minor}", f"{cuda // 1000}.{cuda % 1000 // 10}")


@contextlib.contextmanager
def on_gpu(*arrays: Array) -> Iterator[list[int]]:
    """The addresses of copies on the GPU; what stands there at the end is copied back.

    In the context that TensorRT uses; work that was begun on the default stream is waited for.
    """
    context = ctypes.c_void_p()
    ask("cuInit", 0)
    ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), FIRST)
    try:
        ask("cuCtxSetCurrent", context)
        with contextlib.ExitStack() as memory:
            addresses = [memory.enter_context(_copy(array)) for array in arrays]
            yield [address.value for address in addresses]
            ask("cuCtxSynchronize")
            for array, address in zip(arrays, addresses, strict=True):
                ask("cuMemcpyDtoH_v2", _pointer(array), address, _bytes(array))
    finally:
        ask("cuDevicePrimaryCtxRelease_v2", FIRST)


@contextlib.contextmanager
def _copy(array: Array) -> Iterator[ctypes.c_uint64]:
    address = ctypes.c_uint64()
    ask("cuMemAlloc_v2", ctypes.byref(address), _bytes(array))
    try:
        ask("cuMemcpyHtoD_v2", address, _pointer(array), _bytes(array))
        yield address
    finally:
        ask("cuMemFree_v2", address)


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _bytes(array: Array) -> ctypes.c_size_t:
    return ctypes.c_size_t(array.nbytes)


def _number(function: str, *arguments: int) -> int:
    answer = ctypes.c_int()
    ask(function, ctypes.byref(answer), *arguments)
    return answer.value


def ask(function: str, *arguments: Any) -> None:
    """Calls the driver; the functions and their arguments are those of cuda.h."""
    try:
        code = ctypes.CDLL("libcuda.so.1")[function](*arguments)
    except OSError as error:
        raise EngineError(f"There is no driver of an NVIDIA GPU here: {error}.") from error
    if code:
        raise EngineError(f"The driver of the GPU fails: {function} gives error {code}.")
