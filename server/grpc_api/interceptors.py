"""What goes wrong around a gRPC method, told in the contract's words.

gRPC itself would tell the client the name and the text of any exception, as UNKNOWN.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from server.core.rpc_status import status_of
from server.errors import DeadlineExceeded, InternalError, MalformedRequest, ServingError

logger = logging.getLogger(__name__)

# From the start of a call to the end of its message: an image of 16 MB at 2.2 Mbit/s.
MESSAGE_TIMEOUT_S = 60.0
# Between two messages of a stream, whose client may have nothing to ask for a while.
PAUSE_TIMEOUT_S = 600.0

Context = grpc.aio.ServicerContext[Any, Any]


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Messages are read inside a method of ours: what cannot be read is answered, and what does not
    come is not waited for.

    gRPC would keep the begun messages of any client as long as its connection lives.
    """

    def __init__(
        self,
        message_timeout_s: float = MESSAGE_TIMEOUT_S,
        pause_timeout_s: float = PAUSE_TIMEOUT_S,
    ) -> None:
        self._message_timeout_s = message_timeout_s
        self._pause_timeout_s = pause_timeout_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        # Of a stream of requests, whatever the method is: that leaves the reading to us.
        if handler and handler.unary_unary:
            answer = of_one(handler, self._message_timeout_s)
            return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)
        if handler and handler.stream_stream:
            answers = of_many(handler, self._pause_timeout_s)
            return grpc.stream_stream_rpc_method_handler(answers, None, handler.response_serializer)
        return handler  # health's Watch


def of_one(
    handler: Any, timeout_s: float
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[Any]]:
    async def answer(raw: AsyncIterator[bytes], context: Context) -> Any:
        async with telling_no_faults(context):
            request = await next_message(raw, handler.request_deserializer, timeout_s)
            if request is None:
                raise MalformedRequest("the call has no message")
            return await handler.unary_unary(request, context)

    return answer


def of_many(
    handler: Any, timeout_s: float
) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[Any]]:
    async def answer(raw: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async def requests() -> AsyncIterator[Message]:
            deserialize = handler.request_deserializer
            while (request := await next_message(raw, deserialize, timeout_s)) is not None:
                yield request

        async with telling_no_faults(context):
            async for response in handler.stream_stream(requests(), context):
                yield response

    return answer


async def next_message(
    raw: AsyncIterator[bytes], deserialize: Callable[[bytes], Message], timeout_s: float
) -> Message | None:
    """None: there are no more.

    Raises:
        DeadlineExceeded, MalformedRequest: it does not come, or is none.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return deserialize(await anext(raw))
    except StopAsyncIteration:
        return None
    except TimeoutError as error:
        raise DeadlineExceeded(f"no whole message came within {timeout_s:g} s") from error
    except DecodeError as error:
        raise MalformedRequest("the bytes are no message of this method") from error


@asynccontextmanager
async def telling_no_faults(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.BaseError:
        raise  # it has been told, or nobody is there any more  # it has been told
    except ServingError as error:
        await tell(context, error)
    except Exception:
        logger.exception("a fault of the gateway")
        await tell(context, InternalError("the gateway failed; its log has the reason"))


async def tell(context: Context, error: ServingError) -> None:
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
