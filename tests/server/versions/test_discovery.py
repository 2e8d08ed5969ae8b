"""Which addresses the names of --triton stand for."""

from __future__ import annotations

import pytest

from server.versions import discovery
from server.versions.discovery import TritonAddresses


async def test_an_address_is_itself_and_a_name_is_looked_up() -> None:
    addresses = TritonAddresses(["127.0.0.2:8001", "[::1]:8001", "localhost:8002"])
    assert await addresses.find() == {"127.0.0.2:8001", "[::1]:8001", "127.0.0.1:8002"}


async def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(OSError, match=r"nobody\.invalid:8001 cannot be looked up"):
        await TritonAddresses(["nobody.invalid:8001"]).find()


async def test_a_name_that_cannot_be_looked_up_keeps_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = TritonAddresses(["localhost:8001"])
    before = await addresses.find()

    async def away(name: str) -> set[str]:
        raise OSError("the name server is away")

    monkeypatch.setattr(discovery, "look_up", away)
    assert await addresses.find() == before
