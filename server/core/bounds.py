"""What a raw message may hold, checked before anything is made of it.

A message of a few hundred kilobytes can be a hundred thousand objects once it is parsed, and hold
the event loop for seconds. So its fields are counted and its strings measured where they lie: in
protobuf's wire format along its tags, in JSON from quote to quote. Images are skipped, so that the
time depends on the number of fields and not on the number of bytes.

Wire format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NoReturn, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from server.errors import MalformedRequest

MAX_CHARACTERS = 256  # of a string: a name, a version, an id
MAX_DEPTH = 16  # of JSON
# Fields of newer contracts, which protobuf keeps and we ignore.
MAX_UNKNOWN_BYTES = 16 << 10
# A list has at most as many items as a batch has requests, but there are short lists besides.
MIN_ITEMS = 16
# Of a message in all: a request of a batch in JSON has up to 21 names, values and marks.
VALUES_PER_ITEM = 32
MIN_VALUES = 10_000
# JSON without its images: names, punctuation, white space.
TEXT_BYTES_PER_VALUE = 100


@dataclass(frozen=True)
class Bounds:
    """Of one message; they follow from the size of a batch."""

    max_items: int
    max_values: int

    @classmethod
    def for_batches(cls, max_batch_requests: int) -> Bounds:
        max_items = max(MIN_ITEMS, max_batch_requests)
        return cls(max_items, max(MIN_VALUES, VALUES_PER_ITEM * max_items))


def refuse_list(name: str, max_items: int) -> NoReturn:
    raise MalformedRequest(f"{name} has more than {max_items} items, the limit", field=name)


def refuse_string(name: str) -> NoReturn:
    raise MalformedRequest(
        f"{name} has more than {MAX_CHARACTERS} characters, the limit", field=name
    )


def check_string(name: str, text: str) -> None:
    """
    Raises:
        MalformedRequest: it is too long.
    """
    if len(text) > MAX_CHARACTERS:
        refuse_string(name)


# ---------------------------------------------------------------- protobuf

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
MAX_UTF8_BYTES = 4
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_SFIXED32: FIXED32,
    FieldDescriptor.TYPE_STRING: LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: LENGTH_DELIMITED,
}


@dataclass(frozen=True)
class Rule:
    """What may follow one tag."""

    name: str
    is_repeated: bool = False
    is_string: bool = False
    is_packed: bool = False
    rules: Rules | None = None  # of the message that it holds


Rules: TypeAlias = dict[int, Rule]


def check_message(raw: bytes, kind: type[Message], bounds: Bounds) -> None:
    """
    Raises:
        MalformedRequest: the message has too many fields or items, a string that is too long, too
            much that is unknown, or is not in protobuf's wire format.
    """
    try:
        MessageWalk(raw, bounds).walk(rules_for(kind.DESCRIPTOR), 0, len(raw))
    except IndexError as error:
        raise malformed() from error


def malformed() -> MalformedRequest:
    return MalformedRequest("the bytes are not a valid message of this method")


def rules_for(kind: Any) -> Rules:
    """By tag, for a Descriptor, of which protobuf has two types. No request holds its own kind."""
    if kind.full_name not in RULES:
        RULES[kind.full_name] = dict(chain.from_iterable(map(rules_of_field, kind.fields)))
    return RULES[kind.full_name]


RULES: dict[str, Rules] = {}  # by the name of the message


def rules_of_field(described: FieldDescriptor) -> Iterator[tuple[int, Rule]]:
    kind = described.message_type
    wire_type = WIRE_TYPES.get(described.type, VARINT)
    yield (
        described.number << 3 | wire_type,
        Rule(
            described.name,
            described.is_repeated,
            described.type == described.TYPE_STRING,
            rules=rules_for(kind) if kind else None,
        ),
    )
    if described.is_repeated and wire_type != LENGTH_DELIMITED:
        packed = Rule(described.name, is_repeated=True, is_packed=True)
        yield described.number << 3 | LENGTH_DELIMITED, packed


class MessageWalk:
    """From tag to tag through a message and those in it. Each request pays for it, so it is tight:
    small numbers, which are most, are read in place.
    """

    def __init__(self, raw: bytes, bounds: Bounds) -> None:
        self._raw = raw
        self._max_items = bounds.max_items
        self._values_left = self._max_values = bounds.max_values
        self._unknown_left = MAX_UNKNOWN_BYTES

    def walk(self, rules: Rules, position: int, end: int) -> None:
        raw, n_items = self._raw, dict[str, int]()
        while position < end:
            began = position
            tag = raw[position]
            position += 1
            if tag >= 0x80:
                tag, position = read_varint(raw, began)
            start = position
            if tag & 7 == LENGTH_DELIMITED:
                size = raw[position]
                start += 1
                if size >= 0x80:
                    size, start = read_varint(raw, position)
                position = start + size
            else:
                position = self._number_end(tag & 7, position)
            if position > end:
                raise malformed()
            rule = rules.get(tag)
            self._values_left -= 1
            if rule is None or self._values_left < 0:
                self._count_unknown(position - began)
                continue
            if rule.is_repeated:
                self._count_items(rule, n_items, position - start)
            if rule.rules is not None:
                self.walk(rule.rules, start, position)
            elif rule.is_string and position - start > MAX_CHARACTERS:
                self._check_string(rule.name, start, position)

    def _number_end(self, wire_type: int, position: int) -> int:
        if wire_type == VARINT:
            return read_varint(self._raw, position)[1]
        if wire_type not in FIXED_BYTES:  # a group, which proto3 does not have
            raise malformed()
        return position + FIXED_BYTES[wire_type]

    def _count_unknown(self, n_bytes: int) -> None:
        if self._values_left < 0:
            raise MalformedRequest(
                f"the message has more than {self._max_values} fields, the limit"
            )
        self._unknown_left -= n_bytes
        if self._unknown_left < 0:
            raise MalformedRequest(
                f"the message has more than {MAX_UNKNOWN_BYTES} bytes of unknown fields, the limit"
            )

    def _count_items(self, rule: Rule, n_items: dict[str, int], size: int) -> None:
        count = size if rule.is_packed else 1
        n_items[rule.name] = total = n_items.get(rule.name, 0) + count
        if total > self._max_items:
            refuse_list(rule.name, self._max_items)

    def _check_string(self, name: str, start: int, end: int) -> None:
        """Its bytes are more than the characters that it may have; they may still be fewer."""
        if end - start > MAX_CHARACTERS * MAX_UTF8_BYTES or (
            len(self._raw[start:end].decode(errors="replace")) > MAX_CHARACTERS
        ):
            refuse_string(name)


def read_varint(raw: bytes, position: int) -> tuple[int, int]:
    """A number, and where it ends."""
    byte = raw[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    for index in range(1, MAX_VARINT_BYTES):
        byte = raw[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise malformed()


# ---------------------------------------------------------------- JSON

# A character may be written as one escaped half of a pair after the other.
MAX_ESCAPED_BYTES = 12
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
COLON = re.compile(rb"[ \t\r\n]{0,64}:")
NOT_STRUCTURE = bytes(set(range(256)).difference(b"[]{},"))
WHITE_SPACE = b" \t\r\n"
LONG_WORD = re.compile(rb"[^\[\]{},:]{%d}" % (MAX_CHARACTERS + 1))


def check_json(raw: bytes, image_field: str, bounds: Bounds) -> None:
    """Strings in `image_field`, and in lists in it, may have any length.

    Raises:
        MalformedRequest: the JSON has too many values or items, a string or a number that is too
            long, too much between its strings, or is nested too deeply.
    """
    walk = JsonWalk(raw, image_field.encode(), bounds)
    position = 0
    while (start := raw.find(b'"', position)) >= 0:
        walk.pass_structure(position, start)
        position = walk.pass_string(start)
    walk.pass_structure(position, len(raw))


@dataclass
class JsonWalk:
    """From quote to quote; what is between strings is the structure."""

    raw: bytes
    image_field: bytes
    bounds: Bounds
    name: bytes = b""  # the last one before a colon
    n_values: int = 0
    n_text_bytes: int = 0
    n_items: list[int] = field(default_factory=list)  # of each list and object that is open

    def pass_structure(self, start: int, end: int) -> None:
        self._count_text(end - start)
        structure = self.raw[start:end].translate(None, NOT_STRUCTURE)
        self._count_values(len(structure))
        for mark in structure:
            self._pass_mark(mark)
        if end - start > MAX_CHARACTERS and LONG_WORD.search(
            self.raw[start:end].translate(None, WHITE_SPACE)
        ):
            raise MalformedRequest(f"the JSON has a number of more than {MAX_CHARACTERS} digits")

    def _pass_mark(self, mark: int) -> None:
        if mark in b"[{":
            self.n_items.append(1)
            if len(self.n_items) > MAX_DEPTH:
                raise MalformedRequest(f"the JSON is nested more than {MAX_DEPTH} levels deep")
        elif mark in b"]}":
            if self.n_items:  # what closes nothing is for the parser to report
                self.n_items.pop()
        elif self.n_items:
            self.n_items[-1] += 1
            if self.n_items[-1] > self.bounds.max_items:
                refuse_list("a list in the JSON", self.bounds.max_items)

    def pass_string(self, start: int) -> int:
        """Returns where it ends."""
        self._count_values(1)
        end = self._image_end(start) if self.name == self.image_field else self._text_end(start)
        if COLON.match(self.raw, end):
            self.name = self.raw[start + 1 : end - 1]
            self._count_text(len(self.name))
            if len(self.name) > MAX_CHARACTERS:
                refuse_string("a name in the JSON")
        return end

    def _image_end(self, start: int) -> int:
        end = self.raw.find(b'"', start + 1) + 1
        if self.raw[end - 2 : end - 1] == b"\\":
            raise MalformedRequest(f"{self._field()} is not base64", field=self._field())
        return end or len(self.raw)  # without an end: the parser reports it

    def _text_end(self, start: int) -> int:
        window_end = start + MAX_CHARACTERS * MAX_ESCAPED_BYTES + 2
        text = STRING.match(self.raw, start, window_end)
        if text is None and window_end < len(self.raw):
            refuse_string(self._field())
        end = text.end() if text else len(self.raw)
        self._count_text(end - start)
        if end - start > MAX_CHARACTERS + 2 and n_characters(self.raw[start:end]) > MAX_CHARACTERS:
            refuse_string(self._field())
        return end

    def _field(self) -> str:
        return self.name.decode(errors="replace") or "a string in the JSON"

    def _count_values(self, count: int) -> None:
        self.n_values += count
        if self.n_values > self.bounds.max_values:
            raise MalformedRequest(f"the JSON has more than {self.bounds.max_values} values")

    def _count_text(self, n_bytes: int) -> None:
        self.n_text_bytes += n_bytes
        if self.n_text_bytes > TEXT_BYTES_PER_VALUE * self.bounds.max_values:
            raise MalformedRequest("the JSON has too much besides its images")


def n_characters(text: bytes) -> int:
    """Of a JSON string; 0 if it is invalid, which the parser reports."""
    with contextlib.suppress(ValueError):
        return len(json.loads(text))
    return 0
