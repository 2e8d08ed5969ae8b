import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from export.conversion.calibration import calibration_images, calibration_sha256
from export.errors import CalibrationError
from tests.export.recorder import Recorder

PHOTO = pb.Preprocessing(photo=pb.Photo(resize=8, crop=8))
DIGIT = pb.Preprocessing(digit=pb.Digit(size=32, box=20))


def pixels_of(grey: int) -> npt.NDArray[np.uint8]:
    return np.full((8, 8, 3), grey, dtype=np.uint8)


def png(grey: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels_of(grey)).save(content, "PNG")
    return content.getvalue()


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def test_pictures_of_all_folders_are_prepared_in_the_order_of_their_names(tmp_path: Path) -> None:
    contents = {"dog/b.PNG": png(3), "a.png": png(1), "cat/z.png": png(2), "cat/notes.txt": b"no"}
    write(tmp_path, contents)
    images = calibration_images(tmp_path, PHOTO)
    assert images.names == ("a.png", "cat/z.png", "dog/b.PNG")
    assert images.pixels.dtype == np.uint8
    assert np.array_equal(images.pixels, [pixels_of(1), pixels_of(2), pixels_of(3)])
    assert images.facts.images == 3
    assert images.facts.sha256 == hashlib.sha256(png(1) + png(2) + png(3)).hexdigest()
    assert images.skipped == ()


def test_a_digit_is_found_as_the_gateway_finds_it(tmp_path: Path, digit: bytes) -> None:
    write(tmp_path, {"seven.png": digit})
    images = calibration_images(tmp_path, DIGIT)
    assert images.pixels.shape == (1, 32, 32, 1)
    assert images.pixels[0, 0].max() == 0 and images.pixels.max() > 200  # light ink on dark paper


def test_pictures_that_the_gateway_refuses_are_left_out_and_named(
    tmp_path: Path, digit: bytes
) -> None:
    write(tmp_path, {"7/seven.png": digit, "7/torn.png": digit[:200], "blank.png": png(255)})
    images = calibration_images(tmp_path, DIGIT)
    assert (images.names, images.facts.images) == (("7/seven.png",), 1)
    assert images.facts.sha256 == hashlib.sha256(digit).hexdigest()
    assert images.skipped == ("7/torn.png", "blank.png")


def test_of_many_pictures_some_of_each_class_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.conversion.calibration.MAX_PICTURES", 4)
    names = [f"{kind}/{number}.png" for kind in ("ant", "bee") for number in range(5)]
    write(tmp_path, {name: png(number) for number, name in enumerate(names)})
    images = calibration_images(tmp_path, PHOTO)
    assert images.names == ("ant/0.png", "ant/2.png", "bee/0.png", "bee/2.png")
    assert images.facts.images == 4


def test_progress_moves_with_each_batch_and_reaches_the_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.conversion.calibration.BATCH", 2)
    write(tmp_path, {f"{number}.png": png(number) for number in range(3)})
    recorder = Recorder()
    images = calibration_images(tmp_path, PHOTO, recorder)
    assert recorder.reports == [("pictures", 2, 3), ("pictures", 3, 3)]
    assert np.array_equal(images.pixels[:, 0, 0, 0], [0, 1, 2])


def test_hash_is_of_the_pictures_and_of_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(1), "b/c.png": png(2)})
    before = calibration_sha256(tmp_path)
    write(tmp_path, {"notes.txt": b"taken on Tuesday"})
    assert calibration_sha256(tmp_path) == before
    write(tmp_path, {"b/c.png": png(3)})
    assert calibration_sha256(tmp_path) != before


@pytest.mark.parametrize(
    "folder, reason",
    [
        (None, "int8 needs pictures"),
        ("nowhere", "There is no folder"),
        ("bare", "has no pictures"),
        ("broken", "rejects all 1 pictures in .*broken, such as a.png"),
    ],
)
def test_without_pictures_the_error_says_what_to_give(
    folder: str | None, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "bare" / "looks-like-a.png").mkdir(parents=True)  # a folder is no picture
    write(tmp_path, {"broken/a.png": b"no picture"})
    path = tmp_path / folder if folder else None
    with pytest.raises(CalibrationError, match=f"{reason}.*--calibration DIR with a few hundred"):
        calibration_images(path, PHOTO)
    if folder != "broken":
        with pytest.raises(CalibrationError, match=reason):
            calibration_sha256(path)
