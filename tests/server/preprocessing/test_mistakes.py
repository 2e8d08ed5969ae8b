"""Each usual mistake is named, with what mends it; files are not mistaken for one."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from server.errors import MalformedRequest
from server.preprocessing.decode import decode
from server.preprocessing.mistakes import find_mistake


def message_for(content: bytes) -> str:
    with pytest.raises(MalformedRequest) as refusal:
        decode(content, max_bytes=1 << 20, max_pixels=1 << 20)
    assert refusal.value.metadata == {"field": "image"}
    return refusal.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"photo.jpg", r"name of a file: send .*\(curl: --data-binary @photo\.jpg"),
        (b'{"image": {}}', "is JSON: send it with the content type application/json"),
        (b"data:image/png;base64,iVBORw0KGgo=", "is a data: URI"),
        (b"http://example.org/a.png", "is a URL, and the gateway fetches none"),
        (b"image=@photo.jpg", "-F image=@photo.jpg"),
        (b"--x\r\nContent-Type: image/png\r\n", "content type multipart/form-data"),
        (b"\x1f\x8b\x08" + bytes(20), "compressed with gzip"),
        (b"\xef\xbf\xbd\xef\xbf\xbd", "was read as text"),
        (b"\x89PNG\x1a" + b"x" * 100, "line ends on the way, as curl -d does"),
        (b"\xff\xd8\xff" + b"x" * 100, "zero bytes and line ends on the way, as curl -d does"),
    ],
)
def test_a_mistake_is_named_with_what_mends_it(content: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        decode(content, max_bytes=1 << 20, max_pixels=1 << 20)


def test_base64_is_named_in_either_alphabet_and_in_lines(digit: bytes) -> None:
    for text in (
        base64.b64encode(digit),
        base64.urlsafe_b64encode(digit),
        base64.encodebytes(digit),
        base64.b64encode(b"\xff\xd8\xff\xfe" + bytes(99)),
    ):
        assert "is in base64: send the bytes that it stands for" in message_for(text)


def test_no_file_is_mistaken(zoo: Any) -> None:
    """Nor one that is refused for what it is."""
    taken = [
        specimen.name
        for specimen in zoo.zoo().values()
        if zoo.MALFORMED not in specimen.outcomes and find_mistake(specimen.content)
    ]
    assert taken == []


def test_what_is_too_long_for_a_name_is_searched_in_no_time() -> None:
    for blank in (b" ", b"\n", b"A", b"@", b"--"):
        assert find_mistake(blank * (8 << 20)) is None
