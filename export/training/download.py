"""MNIST's training files from a public mirror, by name and MD5, downloaded once and kept."""

from __future__ import annotations

from pathlib import Path

from export.checkpoints.download import Downloads, RemoteFile, fetch_file
from export.files import cache_path

MIRROR_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
REMEDY = "give --data FILE with a copy of MNIST"
# The four files and their MD5, as torchvision lists them.
TRAIN_IMAGES = RemoteFile(
    "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "md5", REMEDY
)
TRAIN_LABELS = RemoteFile(
    "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", "md5", REMEDY
)
TEST_IMAGES = RemoteFile(
    "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", "md5", REMEDY
)
TEST_LABELS = RemoteFile(
    "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", "md5", REMEDY
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def mnist_downloads() -> Downloads:
    return Downloads(url=MIRROR_URL, folder=cache_path() / "mnist")


def fetch_mnist(downloads: Downloads, files: tuple[RemoteFile, ...] = FILES) -> Path:
    """Downloads what is missing of the four files; returns the path of the first.

    Raises:
        DownloadError: a file cannot be downloaded or kept, or is not the published one.
    """
    paths = [fetch_file(file, downloads) for file in files]
    return paths[0]
