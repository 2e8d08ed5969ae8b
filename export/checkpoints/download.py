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

import hashlib
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

    def to_url(self, remote: RemoteFile) -> str:
        return f"{self.url.rstrip('/')}/{remote.file}"


@dataclass(frozen=True)
class RemoteFile:
    """A file that is known before it is downloaded."""

    file: str  # its name on the server, and in the cache
    digest: str  # that of its content begins so, in hexadecimal
    algorithm: str = "sha256"  # of hashlib
    remedy: str = (  # for those who cannot download it
        "give --weights FILE with a copy of it, or --weights random for seeded weights "
        "(meaningless answers)"
    )

    def matches(self, path: Path) -> bool:
        """Whether a file has this content.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, self.algorithm).hexdigest()
        return digest.startswith(self.digest)


def fetch(checkpoint: Checkpoint, downloads: Downloads) -> Path:
    """The checkpoint's file in the cache; downloaded if it is missing.

    Raises:
        DownloadError: it cannot be downloaded or kept, or is not the published one.
    """
    return fetch_file(RemoteFile(checkpoint.file, checkpoint.sha256_prefix), downloads)


def fetch_file(remote: RemoteFile, downloads: Downloads) -> Path:
    """The file in the cache; downloaded if it is missing.

    Raises:
        DownloadError: it cannot be downloaded or kept, or is not the published one.
    """
    path = downloads.folder / remote.file
    try:
        if path.exists():
            _check(path, remote, downloads)
            return path
        downloads.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _download(remote, downloads, path)
    except OSError as error:
        raise DownloadError(
            f"Cannot keep {remote.file} in {downloads.folder}: {error.strerror or error}; "
            f"set XDG_CACHE_HOME to another folder, or {remote.remedy}."
        ) from error
    return path


def _download(remote: RemoteFile, downloads: Downloads, path: Path) -> None:
    """Call with the lock held; ends with one rename."""
    partial = path.with_name(f"{path.name}.partial")
    resumed = partial.exists()
    if not (resumed and remote.matches(partial)):
        _receive(remote, downloads, partial)
        if resumed and not remote.matches(partial):
            partial.unlink()  # what an earlier build left was not the beginning of this file
            _receive(remote, downloads, partial)
    _check(partial, remote, downloads)
    partial.rename(path)


def _check(path: Path, remote: RemoteFile, downloads: Downloads) -> None:
    if not remote.matches(path):
        path.unlink()
        raise DownloadError(
            f"{path} was not the published file: its {remote.algorithm} does not begin with "
            f"{remote.digest}. It has been deleted: try again to download it, or {remote.remedy}."
        )
    sha256, record = file_sha256(path), downloads.folder / f"{remote.file}.sha256"
    recorded = record.read_text("utf-8").strip() if record.exists() else ""
    for first in filter(None, (recorded, downloads.known.get(remote.file))):
        if first != sha256:
            path.unlink()
            raise DownloadError(
                f"{path} was not the file of the first download: its sha256 is {sha256}, and that "
                f"was {first}. It has been deleted: try again to download it, or use a copy "
                f"that you trust ({remote.remedy})."
            )
    if not recorded:
        record.write_text(f"{sha256}\n", "utf-8")


# ---------------------------------------------------------------------------------------- the wire


def _receive(remote: RemoteFile, downloads: Downloads, partial: Path) -> None:
    """Appends to the partial file until it is complete; retries after dropped connections."""
    url = downloads.to_url(remote)
    reached = False
    for pause_s in (*downloads.pauses_s, None):
        size = partial.stat().st_size if partial.exists() else 0
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={size}-"} if size else {})
        try:
            with httpx.stream(
                "GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True
            ) as response:
                reached = True
                _append(response, partial, downloads.reporter, remote.file)
                return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if pause_s is None or not _may_pass(error, reached):
                raise DownloadError(
                    f"Cannot download {url} ({_reason(error)}): {remote.remedy}, or put the file "
                    f"into {downloads.folder}."
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
