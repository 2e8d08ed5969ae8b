"""The GPU through its driver: its properties, and memory on it.

It uses ctypes, since the driver is installed wherever a GPU can be used, and then no CUDA package
for Python is needed. Of several GPUs it takes the first that the driver shows
(CUDA_VISIBLE_DEVICES), as TensorRT does.
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
    cuda: str  # the newest version that the driver supports: "13.1"


def find_gpu() -> Gpu:
    """Returns the GPU for which engines are built and on which they run.

    Raises:
        EngineError: there is no driver, or it reports an error.
    """
    call_driver("cuInit", 0)
    name = ctypes.create_string_buffer(256)
    call_driver("cuDeviceGetName", name, len(name), FIRST)
    major, minor = (
        _read_int("cuDeviceGetAttribute", attribute, FIRST)
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
    )
    cuda = _read_int("cuDriverGetVersion")  # 13010 is 13.1
    return Gpu(name.value.decode(), f"{major}.{minor}", f"{cuda // 1000}.{cuda % 1000 // 10}")


@contextlib.contextmanager
def on_gpu(*arrays: Array) -> Iterator[list[int]]:
    """Copies the arrays to the GPU and yields their addresses there; copies them back at the end.

    It uses the same context as TensorRT, and waits for work on the default stream before it copies
    back.
    """
    context = ctypes.c_void_p()
    call_driver("cuInit", 0)
    call_driver("cuDevicePrimaryCtxRetain", ctypes.byref(context), FIRST)
    try:
        call_driver("cuCtxSetCurrent", context)
        with contextlib.ExitStack() as memory:
            addresses = [memory.enter_context(_copy(array)) for array in arrays]
            yield [address.value for address in addresses]
            call_driver("cuCtxSynchronize")
            for array, address in zip(arrays, addresses, strict=True):
                call_driver("cuMemcpyDtoH_v2", _pointer(array), address, _bytes(array))
    finally:
        call_driver("cuDevicePrimaryCtxRelease_v2", FIRST)


@contextlib.contextmanager
def _copy(array: Array) -> Iterator[ctypes.c_uint64]:
    address = ctypes.c_uint64()
    call_driver("cuMemAlloc_v2", ctypes.byref(address), _bytes(array))
    try:
        call_driver("cuMemcpyHtoD_v2", address, _pointer(array), _bytes(array))
        yield address
    finally:
        call_driver("cuMemFree_v2", address)


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _bytes(array: Array) -> ctypes.c_size_t:
    return ctypes.c_size_t(array.nbytes)


def _read_int(function: str, *arguments: int) -> int:
    result = ctypes.c_int()
    call_driver(function, ctypes.byref(result), *arguments)
    return result.value


def call_driver(function: str, *arguments: Any) -> None:
    """Calls a function of cuda.h in the driver.

    Raises:
        EngineError: there is no driver, or it reports an error.
    """
    try:
        code = ctypes.CDLL("libcuda.so.1")[function](*arguments)
    except OSError as error:
        raise EngineError(f"No driver for an NVIDIA GPU was found: {error}.") from error
    if code:
        raise EngineError(f"The GPU's driver failed: {function} returned error {code}.")
