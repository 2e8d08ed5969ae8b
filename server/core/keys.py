"""API keys: who calls, which models each client may use, and how often.

The file holds the sha256 of each key, not the key. A key is 256 random bits (`convoy key`), so a
slow hash would add no protection.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from server.core.ledger import Instant, Ledger, OwnInstant
from server.errors import AuthRequired, Forbidden, RateLimited, StartFailed, cut

logger = logging.getLogger(__name__)

STRANGERS_PER_S = 10
STRANGERS_BURST = 50
ROUNDING_S = 1e-6
MAX_STRANGERS = 10_000  # hosts that are remembered
REMEDY = "`convoy key NAME` makes a key and its lines"


class KeyEntry(BaseModel, extra="forbid"):
    """One key, as in the file."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requests_per_s: PositiveFloat | None = None  # None: unlimited
    burst: PositiveInt | None = None  # at once, after a pause; None: those of 1 s
    models: list[str] | None = None  # None: all


class TokenBucket:
    """Holds up to `burst` tokens, and gains `per_s` of them per second.

    All that it has to know is when it will be full, which workers can share.
    """

    def __init__(self, per_s: float, burst: float, full_at: Instant | None = None) -> None:
        self._per_s = per_s
        self._burst = burst
        self._full_at = full_at or OwnInstant()

    def take(self) -> float:
        """Takes a token. Returns 0, or the seconds until there is one."""
        now_s = time.monotonic()
        full_in_s = max(0.0, self._full_at.read_s() - now_s) + 1 / self._per_s
        wait_s = full_in_s - self._burst / self._per_s
        if wait_s > ROUNDING_S:
            return wait_s
        self._full_at.write_s(now_s + full_in_s)
        return 0.0


class Strangers:
    """What clients without a key may ask for at some cost, per host: what describes the contract.

    The probes are not counted: to refuse one costs as much as to answer it.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger  # None: there are no other workers
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def charge(self, host: str) -> None:
        """
        Raises:
            RateLimited: the host asked too often.
        """
        if wait_s := self._bucket(host).take():
            raise RateLimited(
                f"without a key a host may ask {STRANGERS_PER_S} times per second: "
                f"try again in {wait_s:.2f} s",
                retry_after_s=wait_s,
            )

    def _bucket(self, host: str) -> TokenBucket:
        if self._ledger:
            full_at = self._ledger.instant_of_host(host)
            return TokenBucket(STRANGERS_PER_S, STRANGERS_BURST, full_at)
        bucket = self._buckets.pop(host, None) or TokenBucket(STRANGERS_PER_S, STRANGERS_BURST)
        self._buckets[host] = bucket
        if len(self._buckets) > MAX_STRANGERS:
            self._buckets.popitem(last=False)
        return bucket


class Key:
    def __init__(self, name: str, entry: KeyEntry, ledger: Ledger | None = None) -> None:
        self.name = name
        self.entry = entry
        per_s = entry.requests_per_s
        full_at = ledger.instant(name) if ledger else None
        burst = entry.burst or max(1.0, per_s or 0.0)
        self._bucket = TokenBucket(per_s, burst, full_at) if per_s else None

    def charge(self) -> None:
        """
        Raises:
            RateLimited: it was used too often.
        """
        wait_s = self._bucket.take() if self._bucket else 0.0
        if wait_s:
            raise RateLimited(
                f"{self.name} may send {self.entry.requests_per_s:g} requests per second: "
                f"try again in {wait_s:.2f} s",
                retry_after_s=wait_s,
            )

    def require(self, model: str) -> None:
        """
        Raises:
            Forbidden: the key is for other models.
        """
        if self.entry.models is not None and model not in self.entry.models:
            raise Forbidden(f"{self.name} may not use the model {cut(model)}", model=model)


class Keys:
    """The keys of one file, whose rates hold for all workers together.

    Raises:
        StartFailed: the file cannot be read, or is invalid.
    """

    def __init__(self, path: Path, ledger: Ledger | None = None) -> None:
        self._path = path
        self._ledger = ledger
        entries = read_keys(path)
        if not entries:
            raise StartFailed(f"{path} holds no key: {REMEDY}")
        self._keys = {name: Key(name, entry, ledger) for name, entry in entries.items()}

    def reload(self) -> None:
        """Reads the file again; if that fails, the keys stay, and the log says why."""
        try:
            entries = read_keys(self._path)
        except StartFailed as error:
            logger.error("the keys stay as they were: %s", error)
            return
        # An unchanged key keeps its bucket: reloading does not reset its rate.
        self._keys = {
            name: held
            if (held := self._keys.get(name)) and held.entry == entry
            else Key(name, entry, self._ledger)
            for name, entry in entries.items()
        }
        if self._keys:
            logger.info("reloaded %s: %d keys", self._path, len(self._keys))
        else:
            logger.critical("%s holds no key any more: every client is refused", self._path)

    def check(self, authorization: str | None) -> Key:
        """Once per call, before its message is read: the key of the client.

        Raises:
            AuthRequired, RateLimited: the key is unknown, or was used too often.
        """
        key = self._find(authorization)
        key.charge()
        return key

    def require(self, name: str, digest: str, model: str) -> None:
        """Once the model is known. The key may have been withdrawn in the meantime.

        Raises:
            AuthRequired, Forbidden: the key was withdrawn, or is not for this model.
        """
        self._held(name, digest).require(model)

    def charge(self, name: str, digest: str) -> None:
        """For each image of a batch but the first, and each message of a stream.

        Raises:
            AuthRequired, RateLimited: the key was withdrawn, or was used too often.
        """
        self._held(name, digest).charge()

    def _held(self, name: str, digest: str) -> Key:
        key = self._keys.get(name)
        if key is None or key.entry.sha256 != digest:
            raise AuthRequired(f"the key {name} has been withdrawn or replaced")
        return key

    def _find(self, authorization: str | None) -> Key:
        scheme, _, secret = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise AuthRequired("an API key is required: send the header authorization: Bearer KEY")
        digest = sha256(secret.strip())
        # All of them, so that the time taken reveals nothing about the keys.
        matches = [key for key in self._keys.values() if same(key.entry.sha256, digest)]
        if not matches:
            raise AuthRequired("unknown API key")
        return matches[0]


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def same(one: str, other: str) -> bool:
    return hmac.compare_digest(one, other)


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """
    Raises:
        StartFailed: the file cannot be read, or is invalid.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = TypeAdapter(dict[str, KeyEntry]).validate_python(raw)
    except OSError as error:
        raise StartFailed(f"{path} cannot be read ({error.strerror}): {REMEDY}") from error
    except ValidationError as invalid:
        fault = invalid.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise StartFailed(f"{path}: {where}: {fault['msg']}: {REMEDY}") from invalid
    except ValueError as error:
        raise StartFailed(f"{path} is not valid TOML ({error}): {REMEDY}") from error
    if len({entry.sha256 for entry in entries.values()}) < len(entries):
        raise StartFailed(f"{path} holds one key under two names: {REMEDY}")
    return entries
