"""A tritonserver without Docker: from NVIDIA's PyTriton wheel, in a folder of its own.

The wheel is never imported; only the server inside it is used, which has no backend but Triton's
python backend. Our backends (`server/triton_backends`) run on that under the native ones' names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from server.errors import TritonCannotStart

REQUIREMENT_PATH = Path(__file__).with_name("tritonserver.txt")
_BACKENDS_PATH = Path(__file__).parents[1] / "triton_backends"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_MACHINES = ("x86_64", "aarch64")
_OLDEST_GLIBC = (2, 35)


def install(cache_path: Path) -> Path:
    """Folder of the tritonserver that `tritonserver.txt` pins; installs it the first time (144 MB).

    Two gateways that start together install it once. Blocks.

    Raises:
        TritonCannotStart: the wheel does not run on this machine, or cannot be installed.
    """
    from filelock import FileLock

    digest = hashlib.sha256(REQUIREMENT_PATH.read_bytes()).hexdigest()[:12]
    folder = cache_path / f"tritonserver-{digest}"
    if not folder.is_dir():
        _check_platform()
        try:
            cache_path.mkdir(parents=True, exist_ok=True)
            with FileLock(cache_path / "tritonserver.lock"):
                if not folder.is_dir():
                    _publish(folder)
        except OSError as error:
            raise TritonCannotStart(
                f"tritonserver cannot be installed in {cache_path}: {error.strerror}; "
                "name a writable folder with --cache or XDG_CACHE_HOME"
            ) from error
    return folder / "pytriton" / "tritonserver"


def lay_out_backends(server_path: Path, folder: Path) -> None:
    """Makes `folder` a backend directory: Triton's python backend, and ours on top of it.

    Raises:
        TritonCannotStart: the wheel has no python backend for this Python.
    """
    stub_path = server_path / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub_path.exists():
        versions = sorted(path.name for path in stub_path.parents[1].iterdir())
        raise TritonCannotStart(
            f"the tritonserver wheel has no backend for Python {_PYTHON}, only for "
            f"{', '.join(versions)}; use one of them, or --runner in-process"
        )
    shutil.copytree(_BACKENDS_PATH, folder, ignore=shutil.ignore_patterns("__pycache__"))
    python_path = folder / "python"
    python_path.mkdir()
    # Copies, since Triton refuses a link to the library. The stub is a link, since it looks for its
    # own libraries next to the real file.
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(server_path / "backends" / "python" / name, python_path)
    (python_path / stub_path.name).symlink_to(stub_path)
    _check_libraries(stub_path)


def environment() -> dict[str, str]:
    """The whole environment of the server and its backends, which use the first python3 on PATH."""
    libraries = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix, "lib"))]
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "LC_ALL": "C.UTF-8",
        # Our backends compute on the CPU, so Triton must not place "auto" instances on a GPU.
        "CUDA_VISIBLE_DEVICES": "",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _check_platform() -> None:
    _, version = platform.libc_ver()
    glibc = tuple(int(part) for part in version.split(".")[:2]) if version else (0, 0)
    if sys.platform != "linux" or platform.machine() not in _MACHINES or glibc < _OLDEST_GLIBC:
        here = f"{platform.system()} {platform.machine()}, glibc {version or 'none'}"
        raise TritonCannotStart(
            "--runner triton-local needs Linux on x86-64 or aarch64 with glibc 2.35 or newer, this "
            f"is {here}; use --runner in-process, or --triton HOST:PORT"
        )
    if importlib.util.find_spec("pip") is None:
        raise TritonCannotStart(
            f"tritonserver is installed by pip, which this Python lacks; run {sys.executable} -m "
            "ensurepip"
        )


def _publish(folder: Path) -> None:
    """Installs next to `folder`, then renames: the folder is complete or does not exist."""
    staging = folder.with_suffix(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile"]
    command += ["--target", str(staging), "--requirement", str(REQUIREMENT_PATH)]
    # The progress bar goes to stderr, since stdout is for results.
    if subprocess.run(command, stdout=2, check=False).returncode:
        shutil.rmtree(staging, ignore_errors=True)
        raise TritonCannotStart(
            "pip could not install tritonserver, for the reasons above; it needs a package index "
            f"once, then the server stays in {folder.parent}"
        )
    staging.rename(folder)


def _check_libraries(stub_path: Path) -> None:
    """If libraries of a backend were missing, every load would hang forever."""
    # Like ldd: the dynamic loader lists what it would load, and runs nothing.
    listing = subprocess.run(
        [stub_path],
        env={**environment(), "LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    missing = [line.split()[0] for line in listing.splitlines() if "not found" in line]
    if missing:
        raise TritonCannotStart(
            f"Triton's python backend does not find {', '.join(missing)}; a Python with a shared "
            f"library is needed (Debian: apt-get install libpython{_PYTHON}; pyenv: "
            "PYTHON_CONFIGURE_OPTS=--enable-shared)"
        )
