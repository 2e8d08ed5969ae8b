"""Who calls: API keys, what each may ask for, and how often; checked at both doors.

The file of keys holds no key, but the sha256 of each. A key is 256 random bits (`convoy key`), so
that a slow hash would protect it from nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import grpc
from grpc_status import rpc_status
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.rpc_status import status_of
from server.errors import AuthRequired, Forbidden, RateLimited, ServingError, StartFailed

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

# The name of the key that the request at hand came with; empty: none was asked for.
client_name: ContextVar[str] = ContextVar("client_name", default="")

# What needs no key: the probes, and what describes the contract.
OPEN_PATHS = re.compile(r"/livez|/readyz|/v2/health/(live|ready)|/openapi\.json|/docs(/[\w.-]+)?")
OPEN_METHODS = re.compile(
    r"/grpc\.health\.v1\.Health/.*|/grpc\.reflection\.v1(alpha)?\.ServerReflection/.*"
    r"|/inference\.GRPCInferenceService/Server(Live|Ready)"
)


class KeyEntry(BaseModel, extra="forbid"):
    """What the file says of one key."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requests_per_s: PositiveFloat | None = None  # None: as many as it likes
    burst: PositiveInt | None = None  # at once, after a pause; None: those of one second
    models: list[str] | None = None  # None: all


class TokenBucket:
    """Holds `burst` tokens, and gains `per_s` of them each second."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._filled_s = time.monotonic()

    def take(self) -> float:
        """Takes a token; where there is none, the seconds until there is one (else 0)."""
        now_s = time.monotonic()
        gained = (now_s - self._filled_s) * self._per_s
        self._tokens, self._filled_s = min(self._burst, self._tokens + gained), now_s
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0


class Key:
    def __init__(self, name: str, entry: KeyEntry) -> None:
        self.name = name
        self.entry = entry
        per_s = entry.requests_per_s
        self._bucket = TokenBucket(per_s, entry.burst or max(1.0, per_s)) if per_s else None

    def charge(self) -> None:
        """
        Raises:
            RateLimited: it has come too often.
        """
        wait_s = self._bucket.take() if self._bucket else 0.0
        if wait_s:
            raise RateLimited(
                f"{self.name} may send {self.entry.requests_per_s:g} requests a second: "
                f"try again in {wait_s:.2f} s",
                retry_after_s=wait_s,
            )

    def require(self, model: str) -> None:
        """
        Raises:
            Forbidden: the key is for other models.
        """
        if self.entry.models is not None and model not in self.entry.models:
            raise Forbidden(f"{self.name} may not ask for the model {model}", model=model)


class Keys:
    """The keys of one file.

    Raises:
        StartFailed: the file cannot be read, or is not what it should be.
    """

    def __init__(
        self, path: Path, note_refusal: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._path = path
        self._note_refusal = note_refusal
        self._keys = {name: Key(name, entry) for name, entry in read_keys(path).items()}

    def reload(self) -> None:
        """Reads the file anew; where that fails, the keys stay, and the log says why."""
        try:
            entries = read_keys(self._path)
        except StartFailed as error:
            logger.error("the keys stay as they were: %s", error)
            return
        # A key that is as it was keeps its bucket: reading anew is no way round a rate.
        self._keys = {
            name: held
            if (held := self._keys.get(name)) and held.entry == entry
            else Key(name, entry)
            for name, entry in entries.items()
        }
        logger.info("read %s anew: %d keys", self._path, len(self._keys))

    def check(self, authorization: str | None) -> str:
        """At the door, once a request: the name of the client.

        Raises:
            AuthRequired, RateLimited: it is nobody's key, or has come too often.
        """
        try:
            key = self._find(authorization)
            key.charge()
        except ServingError as error:
            self._note_refusal(error.reason)
            raise
        return key.name

    def require(self, name: str, model: str) -> None:
        """Behind the door, once a model is known; the key may have been withdrawn meanwhile.

        Raises:
            AuthRequired, Forbidden: it is no key any more, or not for this model.
        """
        self._named(name).require(model)

    def charge(self, name: str) -> None:
        """For each item of a batch or a stream, which would pass the door as one request.

        Raises:
            AuthRequired, RateLimited: it is no key any more, or has come too often.
        """
        self._named(name).charge()

    def _named(self, name: str) -> Key:
        if name not in self._keys:
            raise AuthRequired(f"the key {name} has been withdrawn")
        return self._keys[name]

    def _find(self, authorization: str | None) -> Key:
        scheme, _, secret = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise AuthRequired("a key is needed: send the header authorization: Bearer KEY")
        digest = sha256_of(secret.strip())
        # All of them, so that the time taken tells nothing of the keys.
        found = [key for key in self._keys.values() if same(key.entry.sha256, digest)]
        if not found:
            raise AuthRequired("this key is not known here")
        return found[0]


def sha256_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def same(one: str, other: str) -> bool:
    return hmac.compare_digest(one, other)


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """
    Raises:
        StartFailed: the file cannot be read, or is not what it should be.
    """
    remedy = "`convoy key NAME` makes a key and its lines"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = TypeAdapter(dict[str, KeyEntry]).validate_python(raw)
    except OSError as error:
        raise StartFailed(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except ValidationError as invalid:
        fault = invalid.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise StartFailed(f"{path}: {where}: {fault['msg']}: {remedy}") from invalid
    except ValueError as error:
        raise StartFailed(f"{path} is no TOML file ({error}): {remedy}") from error
    if not entries or len({entry.sha256 for entry in entries.values()}) < len(entries):
        raise StartFailed(f"{path} holds no key, or one under two names: {remedy}")
    return entries


# ---------------------------------------------------------------- at the two doors


class KeyMiddleware:
    """Before an HTTP application: no body is read of who may not send it."""

    def __init__(
        self,
        application: ASGIApp,
        keys: Keys,
        answer: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._application = application
        self._keys = keys
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client_name.set("")
        if not OPEN_PATHS.fullmatch(scope["path"]):
            try:
                client_name.set(self._keys.check(authorization_of(scope["headers"])))
            except ServingError as error:
                await self._refuse(error, scope, receive, send)
                return
        await self._application(scope, receive, send)

    async def _refuse(
        self, error: ServingError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # As it was sent: what it stands for may break a line of the log.
        log_refusal(error, scope["raw_path"].decode("latin-1"))
        response = await self._answer(Request(scope), error)
        if isinstance(error, AuthRequired):
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Before a gRPC server: no message is read of who may not send it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        client_name.set("")
        if not OPEN_METHODS.fullmatch(handler_call_details.method):
            try:
                found = authorization_of(handler_call_details.invocation_metadata)
                client_name.set(self._keys.check(found))
            except ServingError as error:
                log_refusal(error, handler_call_details.method)
                return refusing(error)
        return await continuation(handler_call_details)


def refusing(error: ServingError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort_with_status(rpc_status.to_status(status_of(error)))

    # Of streams both ways, whatever the method is: that reads no message first.
    return grpc.stream_stream_rpc_method_handler(refuse)


def authorization_of(headers: Iterable[tuple[str | bytes, str | bytes]]) -> str | None:
    """Its value where there is exactly one."""
    found = [text_of(value) for name, value in headers if text_of(name) == "authorization"]
    return found[0] if len(found) == 1 else None


def text_of(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def log_refusal(error: ServingError, where: str) -> None:
    logger.info("%s", error.message, extra={"outcome": error.reason, "path": where})
