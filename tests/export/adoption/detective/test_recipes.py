"""The settings that are tried."""

from __future__ import annotations

from dataclasses import replace

from export.adoption.detective.recipes import Space
from export.preparation.given import Given

FREE = Space(224, Given(), is_normalised=True)


def test_the_published_recipes_have_the_published_sides() -> None:
    sides = [setting.resize for setting in FREE.published()]
    assert sides[:3] == [256, 232, 256]
    assert all(setting.crop == 224 for setting in FREE.published())


def test_every_move_keeps_what_was_said() -> None:
    said = Given(resize_mode="shorter", antialias=False, mean=(0.0, 0.0, 0.0), resize=250)
    space = Space(224, said, is_normalised=True)
    start = space.published()[0]
    for move in (space.normalisations, space.channels, space.modes, space.sides, space.filters):
        for setting in move(start):
            assert setting.updated(said) == setting
    assert len(space.sides(start)) == len(space.modes(start)) == 1
    names = {setting.interpolation for setting in space.filters(start)}
    assert names == {"bilinear", "bicubic", "nearest"}, "those without antialiasing"


def test_no_setting_crops_more_than_there_is() -> None:
    start = replace(FREE.published()[0], resize=226)
    assert min(setting.resize or 0 for setting in FREE.sides(start)) == 224


def test_pixels_are_not_normalised() -> None:
    space = Space(224, Given(), is_normalised=False)
    assert {(it.mean, it.std) for it in space.published()} == {(None, None)}
    assert {it.channels for it in space.normalisations(space.published()[0])} == {"rgb", "bgr"}


def test_the_commonest_has_the_least_rarity() -> None:
    first, *others = FREE.published()
    assert FREE.rarity(first) < min(map(FREE.rarity, others))
