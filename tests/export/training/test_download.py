"""Against a server of files on this machine."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from export.checkpoints.download import Downloads, RemoteFile
from export.errors import DownloadError
from export.samples.mnist import read_digits
from export.training.download import FILES, fetch_mnist
from tests.export.samples.test_mnist import IMAGES, LABELS, idx

CONTENTS = {
    "train-images-idx3-ubyte.gz": gzip.compress(idx(IMAGES, 2051)),
    "train-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS, 2049)),
}
TINY = tuple(
    RemoteFile(name, hashlib.md5(content).hexdigest(), "md5", "give --data FILE")
    for name, content in CONTENTS.items()
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Downloads]:
    """Of tiny files; the folder of the cache is empty."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    yield Downloads(url=url, folder=tmp_path / "cache", pauses_s=())
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_are_fetched_and_read(mirror: Downloads) -> None:
    digits = read_digits(fetch_mnist(mirror, TINY))
    assert np.array_equal(digits.images, IMAGES)
    assert digits.labels.tolist() == LABELS.tolist()


def test_a_partial_file_is_completed_and_a_whole_one_kept(
    mirror: Downloads, tmp_path: Path
) -> None:
    mirror.folder.mkdir()
    first = TINY[0].file
    (mirror.folder / f"{first}.partial").write_bytes(CONTENTS[first][:50])
    path = fetch_mnist(mirror, TINY)
    assert path.read_bytes() == CONTENTS[first]
    for name in CONTENTS:
        (tmp_path / "mirror" / name).unlink()
    assert fetch_mnist(mirror, TINY) == path


def test_a_file_with_another_md5_is_not_used(mirror: Downloads, tmp_path: Path) -> None:
    (tmp_path / "mirror" / TINY[1].file).write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"its md5 does not begin with .*give --data FILE"):
        fetch_mnist(mirror, TINY)
    assert not (mirror.folder / TINY[1].file).exists()


def test_a_missing_file_names_the_remedy(mirror: Downloads, tmp_path: Path) -> None:
    (tmp_path / "mirror" / TINY[0].file).unlink()
    with pytest.raises(DownloadError, match=r"404 .*give --data FILE"):
        fetch_mnist(mirror, TINY)


def test_the_four_files_are_those_of_mnist() -> None:
    assert [file.file.partition("-ubyte")[0] for file in FILES] == [
        "train-images-idx3",
        "train-labels-idx1",
        "t10k-images-idx3",
        "t10k-labels-idx1",
    ]
    assert {file.algorithm for file in FILES} == {"md5"}
    assert all(len(file.digest) == 32 for file in FILES)
