"""What one HTTP/1.1 request is, read strictly: where h11 is lenient, a proxy may read otherwise."""

from __future__ import annotations

import h11
from h11._receivebuffer import ReceiveBuffer


class StrictBuffer(ReceiveBuffer):
    """h11 joins folded lines, and drops a content-length that repeats another one.

    A proxy in front may read either differently, so that a request could hide inside another one.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """
        Raises:
            h11.RemoteProtocolError: a header is folded, or the length is given twice.
        """
        lines = super().maybe_extract_lines()
        lengths = 0
        for line in lines or ():
            if line.startswith((b" ", b"\t")):
                raise h11.RemoteProtocolError("a header is folded over several lines")
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                lengths += 1 + value.count(b",")
        if lengths > 1:
            raise h11.RemoteProtocolError("content-length is given twice")
        return lines


class StrictConnection(h11.Connection):
    """h11 bounds only headers that are still incomplete; this bounds complete ones too."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self._max_header_bytes = max_header_bytes
        self._receive_buffer = StrictBuffer()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """
        Raises:
            h11.RemoteProtocolError: the request is invalid or ambiguous.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(
                len(name) + len(value) + 4 for name, value in event.headers
            )
            if size > self._max_header_bytes:
                raise h11.RemoteProtocolError("the headers are too large", error_status_hint=431)
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                # A proxy in front may have used the other one.
                raise h11.RemoteProtocolError("both content-length and transfer-encoding")
            if event.http_version == b"1.0" and b"transfer-encoding" in names:
                raise h11.RemoteProtocolError("transfer-encoding in HTTP/1.0")
        return event
