"""What clients send in place of an image file, and what mends it.

Each is known by its first bytes. It is a fault of the request, and never one of the picture.
"""

from __future__ import annotations

import base64
import re

SEND_THE_FILE = "send the content of the image file (curl: --data-binary @photo.jpg)"
HEAD_BYTES = 64
MAX_NAME_BYTES = 300

JSON = re.compile(rb"\s*[\[{]")
DATA_URI = re.compile(rb"\s*[\"']?data:", re.IGNORECASE)
URL = re.compile(rb"\s*[\"']?(https?|file|s3|gs|ftp)://", re.IGNORECASE)
FORM_FIELD = re.compile(rb"(image|file|data|content|photo|picture)=", re.IGNORECASE)
MULTIPART = re.compile(rb"(\r\n)?--[^\r\n]{1,100}\r?\n(content-|\Z)", re.IGNORECASE)
FILE_NAME = re.compile(
    rb"\s*@?[^\0-\x1f\x7f-\xff]{1,250}\.(jpe?g|png|webp|gif|bmp|tiff?|heic|avif)\s*", re.IGNORECASE
)
GZIP = re.compile(rb"\x1f\x8b\x08")
PYTHON_BYTES = re.compile(rb"b['\"]\\x|bytearray\(")
# U+FFFD, and the signatures of JPEG and PNG read as Latin-1, in UTF-8.
TEXT = re.compile(rb"\xef\xbf\xbd|\xc3\xbf\xc3\x98|\xc2\x89PNG")
BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]+={0,2}\Z")
# Every file of these formats has bytes that are zero; PNG's signature has ends of lines, too.
WITHOUT_ZEROS = re.compile(rb"\xff\xd8\xff|GIF8[79]a|BM|RIFF|II[*+]|MM[*+]")
# Without them, or with those of Unix, or those of Windows.
DAMAGED_PNG = re.compile(rb"\x89PNG(\r?\x1a[^\r\n]|\n\x1a\n|\r?\r\n\x1a\r\n)")
SIGNATURES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF|GIF8|BM|II[*+]\0|MM\0[*+]")

MISTAKES = {
    JSON: "is JSON: send it with the content type application/json",
    DATA_URI: f"is a data: URI: send what its base64 stands for, or {SEND_THE_FILE}",
    URL: f"is a URL, and the gateway fetches none: {SEND_THE_FILE}",
    FORM_FIELD: "is a field of a form: curl writes a form with -F image=@photo.jpg, "
    "a file alone with --data-binary @photo.jpg",
    MULTIPART: "is a multipart body: send it with the content type multipart/form-data and its "
    "boundary",
    GZIP: "is compressed with gzip: send the file as it is",
    PYTHON_BYTES: f"is Python's notation of bytes: {SEND_THE_FILE}",
    TEXT: f"was read as text, which changes its bytes: read the file as bytes; {SEND_THE_FILE}",
    DAMAGED_PNG: "lost or changed its line ends on the way, as curl -d does: "
    "use curl --data-binary @photo.jpg, or a binary transfer",
}


def find_mistake(content: bytes) -> str | None:
    """The rest of a sentence that begins with "the image", or None."""
    head = content[:HEAD_BYTES]
    for pattern, message in MISTAKES.items():
        if pattern.match(content, 0, 2 * HEAD_BYTES):
            return message
    if len(content) < MAX_NAME_BYTES and FILE_NAME.fullmatch(content):
        return f"is the name of a file: {SEND_THE_FILE}"
    if is_base64(head):
        return (
            "is in base64: send the bytes that it stands for, or JSON with the content type "
            'application/json: {"image": {"content": "BASE64"}}'
        )
    if WITHOUT_ZEROS.match(head) and len(content) > HEAD_BYTES and b"\0" not in content:
        return (
            "lost its zero bytes and line ends on the way, as curl -d does: "
            "use curl --data-binary @photo.jpg"
        )
    return None


def is_base64(head: bytes) -> bool:
    """Whether it stands for the beginning of an image file."""
    text = b"".join(head.strip(b" \t\r\n\"'").split())
    if len(text) < 16 or not BASE64.match(text):
        return False
    text = text[:16].translate(bytes.maketrans(b"-_", b"+/"))
    return bool(SIGNATURES.match(base64.b64decode(text + b"=" * (-len(text) % 4))))
