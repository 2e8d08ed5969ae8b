"""Published checkpoints, downloaded once and kept.

A published name ends with the first 8 of the 64 digits of the file's sha256. They show that a file
is damaged, not that it is genuine: anybody can make another one with the same 8. So the whole hash
of the first download is kept, here and in manifests, and no other file is used from then on.

    NAME.pth.partial   what has arrived; the next attempt, or the next build, resumes there
    NAME.pth           the whole file, checked: the partial one, renamed
    NAME.pth.sha256    the hash of the first download
    NAME.pth.lock      held by the build that downloads; others wait for it, and use its file

A resumed download sends no If-Range: the name says what the content must be, and if the parts come
from two different files, the sha256 differs and the whole file is downloaded again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx
from filelock import FileLock

from export.catalog import Checkpoint
from export.errors import DownloadError
from export.files import cache_path, file_sha256
from export.progress import SILENT, Reporter

PYTORCH_URL = "https://download.pytorch.org/models/"
TIMEOUT = httpx.Timeout(30, connect=10)  # seconds without a byte, and until there is a connection
# The server cannot be reached, and waiting does not help.
UNREACHABLE = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def is_published(weights: str) -> bool:
    """Whether this value of --weights names published ones, such as imagenet or imagenet1k_v2."""
    return re.fullmatch(r"imagenet(1k_v\d+)?", weights) is not None


@dataclass(frozen=True)
class Downloads:
    """Where published checkpoints come from, and where they are kept."""

    url: str = PYTORCH_URL  # of a folder that has the files by their names
    folder: Path = field(default_factory=lambda: cache_path() / "weights")
    pauses_s: tuple[float, ...] = (1, 2, 4, 8)  # before another attempt, after a dropped connection
    known: Mapping[str, str] = field(default_factory=dict)  # sha256 of files, from manifests
    reporter: Reporter = SILENT

    def to_url(self, checkpoint: Checkpoint) -> str:
        return f"{self.url.rstrip('/')}/{checkpoint.file}"


def fetch(checkpoint: Checkpoint, downloads: Downloads) -> Path:
    """The checkpoint's file in the cache; downloaded if it is missing.

    Raises:
        DownloadError: it cannot be downloaded or kept, or is not the published one.
    """
    path = downloads.folder / checkpoint.file
    try:
        if path.exists():
            _check(path, checkpoint, downloads)
            return path
        downloads.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _download(checkpoint, downloads, path)
    except OSError as error:
        raise DownloadError(
            f"Cannot keep {checkpoint.file} in {downloads.folder}: {error.strerror or error}; "
            "set XDG_CACHE_HOME to another folder, or give --weights FILE with a copy of it."
        ) from error
    return path


def _download(checkpoint: Checkpoint, downloads: Downloads, path: Path) -> None:
    """Call with the lock held; ends with one rename."""
    partial = path.with_name(f"{path.name}.partial")
    resumed = partial.exists()
    if not (resumed and _is_published(partial, checkpoint)):
        _receive(checkpoint, downloads, partial)
        if resumed and not _is_published(partial, checkpoint):
            partial.unlink()  # what an earlier build left was not the beginning of this file
            _receive(checkpoint, downloads, partial)
    _check(partial, checkpoint, downloads)
    partial.rename(path)


def _check(path: Path, checkpoint: Checkpoint, downloads: Downloads) -> None:
    sha256, record = file_sha256(path), downloads.folder / f"{checkpoint.file}.sha256"
    if not sha256.startswith(checkpoint.sha256_prefix):
        path.unlink()
        raise DownloadError(
            f"{path} was not the published file: its sha256 does not begin with "
            f"{checkpoint.sha256_prefix}. It has been deleted: build again to download it, or "
            "give --weights FILE."
        )
    recorded = record.read_text("utf-8").strip() if record.exists() else ""
    for first in filter(None, (recorded, downloads.known.get(checkpoint.file))):
        if first != sha256:
            path.unlink()
            raise DownloadError(
                f"{path} was not the file of the first download: its sha256 is {sha256}, and that "
                f"was {first}. It has been deleted: build again to download it, or give --weights "
                "FILE with a copy that you trust."
            )
    if not recorded:
        record.write_text(f"{sha256}\n", "utf-8")


def _is_published(path: Path, checkpoint: Checkpoint) -> bool:
    """As far as 8 digits tell."""
    return file_sha256(path).startswith(checkpoint.sha256_prefix)


# ---------------------------------------------------------------------------------------- the wire


def _receive(checkpoint: Checkpoint, downloads: Downloads, partial: Path) -> None:
    """Appends to the partial file until it is complete; retries after dropped connections."""
    url = downloads.to_url(checkpoint)
    reached = False
    for pause_s in (*downloads.pauses_s, None):
        size = partial.stat().st_size if partial.exists() else 0
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={size}-"} if size else {})
        try:
            with httpx.stream(
                "GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True
            ) as response:
                reached = True
                _append(response, partial, downloads.reporter, checkpoint.file)
                return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if pause_s is None or not _may_pass(error, reached):
                raise DownloadError(
                    f"Cannot download {url} ({_reason(error)}): give --weights FILE with a copy of "
                    "it, or --weights random for seeded weights (meaningless answers), or put the "
                    f"file into {downloads.folder}."
                ) from error
            time.sleep(pause_s)


def _append(response: httpx.Response, partial: Path, reporter: Reporter, file: str) -> None:
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        partial.unlink()  # at least as long as the file, but not the file
    response.raise_for_status()
    # A server that does not support ranges answers 200, and sends the whole file.
    is_rest = response.status_code == HTTPStatus.PARTIAL_CONTENT
    with partial.open("ab" if is_rest else "wb") as content:
        received = content.tell()
        length = response.headers.get("content-length")
        total = received + int(length) if length else None
        for chunk in response.iter_raw():
            content.write(chunk)
            received += len(chunk)
            reporter.progress(file, received, total, unit="bytes")


def _may_pass(error: Exception, reached: bool) -> bool:
    """Whether another attempt may succeed; `reached`: the server has answered before."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        )
    return isinstance(error, httpx.TransportError) and (
        reached or not isinstance(error, UNREACHABLE)
    )


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server answers {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__
