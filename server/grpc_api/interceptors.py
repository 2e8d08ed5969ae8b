"""Around every gRPC method: its `Call`, its accounting, its key, and its errors.

gRPC itself would send the client the name and the text of any exception, as UNKNOWN.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.core.call import Call
from server.core.rpc_status import pack, to_status
from server.core.service import Service
from server.errors import MalformedRequest, ServingError, Unimplemented, cut
from server.grpc_api.messages import OPEN_METHODS, Gate, Handler, Read, next_message, parse_host
from server.observability import tracing

# From the start of a call to the end of its message: an image of 16 MB at 2.2 Mbit/s.
MESSAGE_TIMEOUT_S = 60.0
# Between two messages of a stream, whose client may have nothing to ask for a while.
PAUSE_TIMEOUT_S = 600.0
REFLECTION = "/grpc.reflection."
# The method has answered with a status of its own.
ANSWERED = (grpc.aio.BaseError,)

Context = grpc.aio.ServicerContext[Any, Any]


class CallContext:
    """The context that a method sees: gRPC's own, and the call."""

    def __init__(self, context: Context, call: Call) -> None:
        self._context = context
        self.call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def current_call(context: CallContext) -> Call:
    return context.call


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Begins a call from the metadata, reads its messages, and answers it if its method fails.

    Methods are registered as streams of raw requests, so that the reading is ours: no message of a
    stranger is read, one that cannot be parsed is answered, and one that does not come is not
    waited for. gRPC would keep half-sent messages as long as their connection lives.
    """

    def __init__(
        self,
        service: Service,
        message_timeout_s: float = MESSAGE_TIMEOUT_S,
        pause_timeout_s: float = PAUSE_TIMEOUT_S,
    ) -> None:
        self._service = service
        self._gate = Gate()
        self._message_timeout_s = message_timeout_s
        self._pause_timeout_s = pause_timeout_s
        self._wrapped: dict[str, Handler] = {}  # by path; only of methods that there are

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        path = handler_call_details.method
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._wrap(NO_SUCH_METHOD, path)
        return self._wrapped.setdefault(path, self._wrap(handler, path))

    def _wrap(self, handler: Handler, path: str) -> Handler:
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(
                self.wrap_unary(handler, path), None, handler.response_serializer
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self.wrap_stream(handler, path), None, handler.response_serializer
            )
        return grpc.stream_stream_rpc_method_handler(
            self.wrap_watch(handler, path), None, handler.response_serializer
        )

    def wrap_unary(
        self, handler: Handler, path: str
    ) -> Callable[[object, Context], Awaitable[Any]]:
        method: Any = handler.unary_unary
        needs_key = not OPEN_METHODS.fullmatch(path)

        async def answer(_: object, context: Context) -> Any:
            call = self._service.begin("grpc", path)
            try:
                with self._service.receive(call, ANSWERED):
                    self._read_metadata(call, context, needs_key)
                    request = await self._only_message(context, handler, call)
                    return await method(request, CallContext(context, call))
            except (ServingError, Unimplemented) as error:
                await abort_with(context, call, error)

        return answer

    def wrap_watch(
        self, handler: Handler, path: str
    ) -> Callable[[object, Context], AsyncIterator[Any]]:
        """Of health: one message, which is answered until the client has enough."""
        method: Any = handler.unary_stream
        needs_key = not OPEN_METHODS.fullmatch(path)

        async def answer(_: object, context: Context) -> AsyncIterator[Any]:
            call = self._service.begin("grpc", path)
            call.has_messages = True  # that a client stops watching is no failure
            try:
                with self._service.receive(call, ANSWERED):
                    self._read_metadata(call, context, needs_key)
                    responses = method(
                        await self._only_message(context, handler, call),
                        CallContext(context, call),
                    )
                    call.reservation.release()
                    async for response in responses:
                        yield response
            except (ServingError, Unimplemented) as error:
                await abort_with(context, call, error)

        return answer

    def wrap_stream(
        self, handler: Handler, path: str
    ) -> Callable[[object, Context], AsyncIterator[Any]]:
        method: Any = handler.stream_stream
        needs_key = not OPEN_METHODS.fullmatch(path)

        async def answer(_: object, context: Context) -> AsyncIterator[Any]:
            call = self._service.begin("grpc", path)
            try:
                with self._service.receive(call, ANSWERED):
                    self._read_metadata(call, context, needs_key)
                    read = self._reader(context, call, self._pause_timeout_s)
                    requests = messages(read, handler, call)
                    async for response in method(requests, CallContext(context, call)):
                        yield response
            except (ServingError, Unimplemented) as error:
                await abort_with(context, call, error)

        return answer

    async def _only_message(self, context: Context, handler: Handler, call: Call) -> Any:
        """
        Raises:
            DeadlineExceeded, MalformedRequest, ImageTooLarge, Overloaded: it does not come in
                time, is not valid, or there is no room for it.
        """
        message = await self._reader(context, call, self._message_timeout_s)()
        if message is None:
            raise MalformedRequest("the call has no message")
        call.hold(message)
        return to_request(message, handler, call)

    def _reader(self, context: Context, call: Call, timeout_s: float) -> Read:
        if OPEN_METHODS.fullmatch(call.path):
            return functools.partial(self._next_open_message, context, call.path)
        return functools.partial(next_message, context, timeout_s)

    async def _next_open_message(self, context: Context, path: str) -> bytes | None:
        if path.startswith(REFLECTION):
            self._service.charge_stranger(parse_host(context.peer()))
        return await self._gate.next_message(context)

    def _read_metadata(self, call: Call, context: Context, needs_key: bool) -> None:
        metadata = tuple(context.invocation_metadata() or ())
        call.trace_id = tracing.begin(dict(metadata))
        if needs_key:
            self._service.authenticate(call, authorization(metadata))
        call.set_timeout(context.time_remaining())


async def messages(read: Read, handler: Handler, call: Call) -> AsyncIterator[Any]:
    """Of our own methods each raw message becomes a call, which holds its bytes."""
    while (message := await read()) is not None:
        if handler.request_deserializer is None:
            yield message
        else:
            call.hold(message)
            yield to_request(message, handler, call)
            call.reservation.release()


def to_request(message: bytes, handler: Handler, call: Call) -> Any:
    """As the handler wants it: our own methods take it raw, and read it themselves.

    Raises:
        MalformedRequest: it holds too much, or cannot be parsed.
    """
    if handler.request_deserializer is None:
        return message
    kind: type[Message] = handler.request_deserializer.__self__  # type: ignore[attr-defined]
    return call.read(message, kind)


def authorization(metadata: tuple[tuple[str, str | bytes], ...]) -> str | None:
    """The value of the header, if there is exactly one."""
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) != 1:
        return None
    (value,) = values
    return value if isinstance(value, str) else value.decode("latin-1")


async def abort_with(context: Context, call: Call, error: ServingError | Unimplemented) -> NoReturn:
    if isinstance(error, Unimplemented):
        details = [pack(error_details_pb2.RequestInfo(request_id=call.request_id))]
        code: tuple[int, str] = grpc.StatusCode.UNIMPLEMENTED.value
        status = status_pb2.Status(code=code[0], message=error.message, details=details)
    else:
        status = to_status(error, call.request_id)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort raises


async def refuse_method(requests: object, context: CallContext) -> AsyncIterator[Any]:
    raise Unimplemented(f"there is no method {cut(context.call.path)}")
    yield


# A stream both ways, whatever the method is: no message is read for it.
NO_SUCH_METHOD: Handler = grpc.stream_stream_rpc_method_handler(refuse_method)
