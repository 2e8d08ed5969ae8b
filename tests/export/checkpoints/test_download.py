"""Against a server of files on this machine that can be told to fail."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Checkpoint
from export.checkpoints.download import Downloads, fetch
from export.errors import DownloadError
from tests.export.recorder import Recorder

CONTENT = bytes(range(256)) * 1200
HALF = len(CONTENT) // 2
DIGEST = hashlib.sha256(CONTENT).hexdigest()
CHECKPOINT = Checkpoint("imagenet1k_v1", f"net-{DIGEST[:8]}.pth", pb.Preprocessing())


@dataclass
class Files:
    """What the server has, how it fails, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    knows_ranges: bool = True
    statuses: list[int] = field(default_factory=list)  # answered first, one a request
    drops: int = 0  # how many answers break off after the first half of the file
    opened: threading.Event = field(default_factory=threading.Event)  # answers wait for it
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    sent_bytes: int = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers["range"] if self.knows_ranges else None
        self.asked.append(handler.headers["range"])
        assert handler.path == f"/models/{CHECKPOINT.file}"
        assert self.opened.wait(10)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        status = self.statuses.pop(0) if self.statuses else 206 if wanted else 200
        if begin >= len(self.content):
            status = 416
        body = self.content[begin:] if status in (200, 206) else b""
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        if self.drops and body:
            self.drops -= 1
            body = body[: max(0, HALF - begin)]
        self.sent_bytes += len(body)  # first, since the client may end before this thread goes on
        handler.wfile.write(body)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = Files()
    files.opened.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files.url = f"http://127.0.0.1:{server.server_port}/models/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files
        server.shutdown()
        thread.join()


@pytest.fixture
def downloads(files: Files, tmp_path: Path) -> Downloads:
    return Downloads(files.url, tmp_path / "weights", pauses_s=(0, 0))


def kept(downloads: Downloads) -> list[str]:
    """Names of the files in the cache, but for the lock and the hash."""
    paths = downloads.folder.iterdir()
    return sorted(path.name for path in paths if path.suffix not in (".lock", ".sha256"))


def leave_partial(downloads: Downloads, content: bytes) -> None:
    downloads.folder.mkdir()
    (downloads.folder / f"{CHECKPOINT.file}.partial").write_bytes(content)


def test_file_is_downloaded_once_and_kept(files: Files, downloads: Downloads) -> None:
    path = fetch(CHECKPOINT, downloads)
    assert path == downloads.folder / CHECKPOINT.file
    assert path.read_bytes() == CONTENT
    assert fetch(CHECKPOINT, downloads) == path
    assert (files.asked, kept(downloads)) == ([None], [CHECKPOINT.file])


def test_progress_is_reported_in_bytes(files: Files, tmp_path: Path) -> None:
    recorder = Recorder()
    downloads = Downloads(files.url, tmp_path, reporter=recorder)
    fetch(CHECKPOINT, downloads)
    assert recorder.reports[-1] == (CHECKPOINT.file, len(CONTENT), len(CONTENT))
    received = [completed for _, completed, _ in recorder.reports]
    assert received == sorted(set(received))


def test_file_put_into_the_cache_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT.file
    path.write_bytes(CONTENT)
    assert fetch(CHECKPOINT, Downloads("http://127.0.0.1:1/", tmp_path)) == path


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[::-1]], ids=["truncated", "other"])
def test_file_of_another_hash_is_deleted(
    content: bytes, files: Files, downloads: Downloads
) -> None:
    files.content = content
    with pytest.raises(DownloadError, match=rf"begin with {DIGEST[:8]}\. It has been deleted"):
        fetch(CHECKPOINT, downloads)
    assert kept(downloads) == []


def test_damaged_file_in_the_cache_is_deleted_before_it_is_used(
    files: Files, downloads: Downloads
) -> None:
    downloads.folder.mkdir()
    (downloads.folder / CHECKPOINT.file).write_bytes(CONTENT[:HALF])
    with pytest.raises(DownloadError, match="try again to download it"):
        fetch(CHECKPOINT, downloads)
    assert kept(downloads) == []
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT


def alike() -> tuple[Checkpoint, bytes]:
    """A published file of CONTENT, and another content whose hash begins with the same digits."""
    other = next(
        content
        for number in range(10_000)
        if hashlib.sha256(content := b"%d" % number).hexdigest()[:2] == DIGEST[:2]
    )
    return Checkpoint("imagenet1k_v1", f"net-{DIGEST[:2]}.pth", pb.Preprocessing()), other


def test_the_first_digits_are_enough_only_once(tmp_path: Path) -> None:
    checkpoint, other = alike()
    downloads, path = Downloads("http://127.0.0.1:1/", tmp_path), tmp_path / checkpoint.file
    path.write_bytes(CONTENT)
    assert fetch(checkpoint, downloads) == path
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{DIGEST}\n"
    path.write_bytes(other)
    with pytest.raises(DownloadError, match=f"not the file of the first download.*was {DIGEST}"):
        fetch(checkpoint, downloads)
    assert not path.exists()


def test_a_manifest_remembers_the_file_that_a_new_cache_does_not(tmp_path: Path) -> None:
    checkpoint, other = alike()
    downloads = Downloads("http://127.0.0.1:1/", tmp_path, known={checkpoint.file: DIGEST})
    (tmp_path / checkpoint.file).write_bytes(other)
    with pytest.raises(DownloadError, match="not the file of the first download"):
        fetch(checkpoint, downloads)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- resuming


def test_dropped_connection_is_resumed_where_it_broke_off(
    files: Files, downloads: Downloads
) -> None:
    files.drops = 1
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert files.asked == [None, f"bytes={HALF}-"]
    assert files.sent_bytes == len(CONTENT)


def test_next_build_goes_on_where_one_was_killed(files: Files, downloads: Downloads) -> None:
    leave_partial(downloads, CONTENT[:1000])
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert files.asked == ["bytes=1000-"]
    assert files.sent_bytes == len(CONTENT) - 1000


def test_build_killed_just_before_the_end_needs_no_network(
    files: Files, downloads: Downloads
) -> None:
    leave_partial(downloads, CONTENT)
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert (files.asked, kept(downloads)) == ([], [CHECKPOINT.file])


def test_server_without_ranges_sends_all_again(files: Files, downloads: Downloads) -> None:
    files.drops, files.knows_ranges = 1, False
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert files.asked == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
def test_beginning_of_another_file_is_thrown_away(
    size: int, files: Files, downloads: Downloads
) -> None:
    leave_partial(downloads, b"?" * size)
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert files.asked == [f"bytes={size}-", None]


def test_connection_that_always_drops_is_given_up(files: Files, downloads: Downloads) -> None:
    files.drops = 99
    with pytest.raises(DownloadError, match=r"Cannot download http.*peer closed connection"):
        fetch(CHECKPOINT, downloads)
    assert len(files.asked) == 1 + len(downloads.pauses_s)
    assert kept(downloads) == [f"{CHECKPOINT.file}.partial"]  # for another day


def test_server_that_is_busy_is_asked_again(files: Files, downloads: Downloads) -> None:
    files.statuses = [503, 429]
    assert fetch(CHECKPOINT, downloads).read_bytes() == CONTENT
    assert len(files.asked) == 3


# --------------------------------------------------------------------------------- no way to it


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_without_network_one_sentence_names_the_three_ways_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    downloads = Downloads(f"http://127.0.0.1:{unused_port()}", tmp_path / "weights")
    began = time.monotonic()
    with pytest.raises(DownloadError) as raised:
        fetch(CHECKPOINT, downloads)
    assert time.monotonic() - began < min(downloads.pauses_s)  # it is not tried again
    message = str(raised.value)
    assert message.startswith(f"Cannot download {downloads.url}/{CHECKPOINT.file} (")
    assert "--weights FILE" in message and "--weights random" in message
    assert message.endswith(f"put the file into {downloads.folder}.")
    assert "\n" not in message and message.count(". ") == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [("ftp://127.0.0.1/", "unsupported protocol"), ("http://127.0.0.1:port/", "Invalid port")],
)
def test_address_that_is_none_says_so(url: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=reason):
        fetch(CHECKPOINT, Downloads(url, tmp_path))


def test_file_that_the_server_lacks_is_asked_for_once(files: Files, downloads: Downloads) -> None:
    files.statuses = [404]
    with pytest.raises(
        DownloadError, match=r"\(the server answers 404 Not Found\): give --weights"
    ):
        fetch(CHECKPOINT, downloads)
    assert len(files.asked) == 1


def test_cache_that_cannot_be_written_says_so(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="Not a directory; set XDG_CACHE_HOME"):
        fetch(CHECKPOINT, Downloads(files.url, tmp_path / "file" / "weights"))


# ------------------------------------------------------------------------------------- together


def test_two_builds_at_once_download_once(files: Files, downloads: Downloads) -> None:
    files.opened.clear()
    builds = [threading.Thread(target=fetch, args=(CHECKPOINT, downloads)) for _ in range(2)]
    for build in builds:
        build.start()
    time.sleep(0.3)  # both have come as far as they can
    files.opened.set()
    for build in builds:
        build.join(10)
    assert (len(files.asked), kept(downloads)) == (1, [CHECKPOINT.file])


def test_cache_is_where_xdg_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Downloads().folder == tmp_path / "convoy" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert Downloads().folder == Path("/home/me/.cache/convoy/weights")
