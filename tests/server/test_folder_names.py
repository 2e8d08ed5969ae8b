"""What a version's number in a folder name or a request may be."""

import pytest

from server.folder_names import MAX_VERSION_DIGITS, parse_version


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("007", 7), ("9" * MAX_VERSION_DIGITS, 10**MAX_VERSION_DIGITS - 1)],
)
def test_digits_are_a_version(text: str, number: int) -> None:
    assert parse_version(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "1.0", "1e3", " 1", "١", "²", "9" * (MAX_VERSION_DIGITS + 1), "9" * 5000]
)
def test_anything_else_is_none_and_long_numbers_are_not_parsed(text: str) -> None:
    assert parse_version(text) is None
