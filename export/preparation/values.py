"""The values of a file, taken one by one, so that what nobody took can be refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from export.errors import PreparationError

T = TypeVar("T")
NEEDED: Any = object()


class Values:
    """Raises PreparationError where a value is missing, or of another kind than it must be."""

    def __init__(self, file: str, values: Mapping[str, Any]) -> None:
        self.file = file
        self._left = dict(values)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, kind: type[T], default: T = NEEDED) -> T:
        """The value of that kind; the default if there is none, or it is null."""
        value = self._left.pop(key, None)
        if value is None:
            if default is NEEDED:
                raise PreparationError(
                    f"{self.file} lacks {key}, without which it says too little."
                )
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.bad(key, value, f"of the kind {kind.__name__}")
        return value

    def take_any(self, key: str) -> Any:
        return self._left.pop(key, None)

    def take_fraction(self, key: str, default: float) -> float:
        value = self.take(key, float, default)
        if not 0 < value <= 1:
            raise self.bad(key, value, "above 0 and at most 1")
        return value

    def take_numbers(self, key: str) -> tuple[float, ...]:
        """Per channel; one is for all."""
        value = self.take_any(key)
        numbers = value if isinstance(value, list) else [value] * 3
        if not all(type(number) in (int, float) for number in numbers):
            raise self.bad(key, value, "numbers")
        return tuple(map(float, numbers))

    def take_side(self, key: str) -> int:
        """Pixels: 224, [224], or [224, 224] where it is a square."""
        value = self._left.pop(key, None)
        sides = value if isinstance(value, list) else [value]
        if len(set(map(str, sides))) != 1 or type(sides[0]) is not int:
            raise self.bad(key, value, "one number of pixels")
        side: int = sides[0]
        return side

    def take_choice(self, key: str, choices: Collection[str], default: str) -> str:
        value = self.take(key, str, default)
        if value not in choices:
            raise self.bad(key, value, f"one of {', '.join(choices)}")
        return value

    def choose(self, key: str, value: Any, choices: Mapping[Any, T]) -> T:
        if not isinstance(value, str | int) or value not in choices:
            raise self.bad(key, value, f"one of {', '.join(map(str, choices))}")
        return choices[value]

    def ignore(self, *keys: str) -> None:
        for key in keys:
            self._left.pop(key, None)

    def refuse(self, *keys: str) -> None:
        """What would change pixels in a way that is not done here, unless it is switched off."""
        for key in keys:
            if value := self._left.pop(key, None):
                raise PreparationError(
                    f"{self.file} has {key} {value!r}, which would change pixels and is not done "
                    "here."
                )

    def refuse_rest(self) -> None:
        if self._left:
            raise PreparationError(
                f"{self.file} has {', '.join(self._left)}, which may change pixels and is not "
                "known here: take it out if it does not."
            )

    def bad(self, key: str, value: object, expected: str) -> PreparationError:
        return PreparationError(f"{self.file} has {key} {value!r}, must be {expected}.")
