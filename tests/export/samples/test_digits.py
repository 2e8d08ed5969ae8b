import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass
from scipy.ndimage import label as find_regions
from torch.nn import functional

from export.catalog import DIGIT_BOX
from export.samples import digits


def box(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of the ink."""
    rows, columns = np.nonzero(picture > 0.42 * picture.max())
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_held_out_are_360_digits_of_all_classes() -> None:
    rows = digits.random_fifth().held_out
    images = digits.clean(rows)
    assert images.shape == (360, 32, 32, 1)
    assert images.dtype == np.uint8
    counts = np.bincount(digits.data_set()[1][rows], minlength=10)
    assert counts.min() >= 35
    assert counts.max() <= 37


def test_held_out_digits_are_light_on_dark_20_pixels_long_and_centred_by_mass() -> None:
    images = digits.clean(digits.random_fifth().held_out)
    for image in images[:, :, :, 0]:
        assert image.max() == 255
        assert image[0, 0] == 0
        assert abs(max(box(image)) - DIGIT_BOX) <= 1
        assert center_of_mass(image) == pytest.approx((15.5, 15.5), abs=0.3)


def test_clean_digits_are_what_torch_makes_of_the_fields_that_are_trained_on() -> None:
    rows = np.arange(40)
    fields, _ = digits.fields(rows)
    grey = functional.avg_pool2d(fields[:, :1], 2)
    pixels = (grey / grey.amax(dim=(1, 2, 3), keepdim=True) * 255).round()
    assert digits.clean(rows).tolist() == pixels.permute(0, 2, 3, 1).int().tolist()


def test_no_digit_is_in_two_parts() -> None:
    whole = np.arange(1797)
    for part in (digits.random_fifth(), *digits.contiguous_fifths()):
        assert sorted(np.concatenate(part)) == whole.tolist()


def test_contiguous_fifths_cover_the_data_in_order() -> None:
    fifths = [part.held_out for part in digits.contiguous_fifths()]
    assert np.concatenate(fifths).tolist() == list(range(1797))
    assert [len(fifth) for fifth in fifths] == [360, 360, 359, 359, 359]


def test_network_sees_the_levels_of_the_paper() -> None:
    levels = digits.network_input(torch.tensor([0.0, 1.0]))
    assert levels.tolist() == pytest.approx([-0.1, 1.175])


def test_skeleton_of_a_digit_runs_where_its_ink_is() -> None:
    pictures, labels = digits.data_set()
    for label in range(10):
        stroke = digits.stroke(pictures[np.flatnonzero(labels == label)[0]])
        skeleton = stroke.distance == 0
        assert stroke.grey[skeleton].min() > 0.15
        assert 60 < skeleton.sum() < 400  # grid points: about as many as the digit's lines are long
        assert 0.9 * 60 < stroke.length <= 120


def test_skeletons_keep_the_holes_of_digits() -> None:
    pictures, labels = digits.data_set()

    def holes(label: int) -> float:
        """Of a skeleton, the mean over the first 30 of the label."""
        rows = np.flatnonzero(labels == label)[:30]
        skeletons = [digits.stroke(pictures[row]).distance == 0 for row in rows]
        return float(np.mean([find_regions(~skeleton)[1] - 1 for skeleton in skeletons]))

    # One threshold for the whole digit leaves 0.9 and 1.1.
    assert holes(0) == 1
    assert holes(8) > 1.3
    assert holes(1) == holes(7) == 0


def test_resample_turns_scales_and_moves() -> None:
    field = np.zeros((40, 40), dtype=np.float32)
    field[20:22, 30:32] = 1  # 10 to the right of (21, 21)
    moved = digits.resample(
        field, size=(50, 60), source=(21, 21), target=(25, 30), scale=2, angle=np.pi / 2
    )
    assert moved.shape == (60, 50)
    y, x = center_of_mass(moved)
    assert (x + 0.5, y + 0.5) == pytest.approx((25, 30 + 20), abs=0.2)  # clockwise: right is down
    assert moved.sum() == pytest.approx(4 * field.sum(), rel=0.1)


def test_augmented_digits_are_the_same_for_the_same_seed_alone() -> None:
    fields, _ = digits.fields(np.arange(8))

    def drawn(seed: int) -> torch.Tensor:
        return digits.augment(fields, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def moved_and_bent(omitted: tuple[str, ...]) -> float:
    """How far, in grey levels of 0 to 1, augmented digits of one stroke are from plain ones."""
    some, _ = digits.fields(np.arange(50))
    plain = functional.avg_pool2d(some[:, :1], 2)
    drawn = digits.augment(some, torch.Generator().manual_seed(0), ("stroke", *omitted))
    return float((drawn - plain).abs().mean())


def test_omitted_augmentations_leave_the_digit_in_its_place_and_shape() -> None:
    everything, neither = moved_and_bent(()), moved_and_bent(("affine", "elastic"))
    for one in ("affine", "elastic"):
        assert neither < moved_and_bent((one,)) < everything


def test_without_another_stroke_the_levels_are_those_of_the_data_set() -> None:
    some, _ = digits.fields(np.arange(50))
    rest = ("affine", "elastic")
    own = digits.augment(some, torch.Generator().manual_seed(0), ("stroke", *rest))
    drawn = digits.augment(some, torch.Generator().manual_seed(0), rest)
    plain = functional.avg_pool2d(some[:, :1], 2)
    assert (own - plain).abs().mean() < 0.75 * (drawn - plain).abs().mean()


def test_augmented_digits_stay_digits() -> None:
    fields, _ = digits.fields(np.arange(300))
    drawn = digits.augment(fields, torch.Generator().manual_seed(0))
    assert drawn.shape == (300, 1, 32, 32)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    pictures = drawn[:, 0].numpy()
    assert np.median(pictures) < 0.05  # the paper stays dark
    assert pictures.max((1, 2)).min() > 0.5  # and nobody's ink is lost
    long = [max(box(np.where(picture > 0.3, picture, 0))) for picture in pictures]
    assert 18 < np.mean(long) < 23
    assert np.std(long) > 2  # sizes vary: 1.7 by the other changes alone
    centres = np.array([center_of_mass(picture) for picture in pictures])
    assert np.abs(centres - 15.5).max() < 5
    assert 0.8 < centres.std() < 2  # a shift of ±2 pixels has 1.15


def test_augmented_digits_come_in_thin_and_thick_strokes() -> None:
    fields, _ = digits.fields(np.zeros(300, dtype=np.int64))  # one digit, 300 hands
    drawn = digits.augment(fields, torch.Generator().manual_seed(0))
    inked = (drawn > 0.4).float().mean((1, 2, 3))
    assert inked.quantile(0.95) > 2.5 * inked.quantile(0.05)
