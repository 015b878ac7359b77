"""FastAPI: launch and end with the application, and see its requests.

The runtime is launched when the application's own start-up is complete, on its event loop, and ended when its shutdown
is: whatever `lifespan` the application has, it comes first and goes last. A launch that fails is a start-up that fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dbos._hooks.requests import ID_HEADER, BadKeyError, Request, in_request, told
from dbos.error import DBOSException, DBOSInitializationError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def install(app: Any, launch: Callable[[], None], destroy: Callable[[], None]) -> None:
    """Have this application launch and end the runtime, and tell its requests apart."""
    if not (hasattr(app, "add_middleware") and hasattr(app, "add_exception_handler")):
        raise DBOSInitializationError(f"fastapi= takes a FastAPI application, not {type(app).__name__}")
    app.add_exception_handler(DBOSException, _answer_error)
    app.add_middleware(Middleware, launch=launch, destroy=destroy)


async def _answer_error(_: Any, error: Exception) -> Any:
    # Imported with the application: who has one has it.
    from starlette.responses import JSONResponse

    assert isinstance(error, DBOSException)
    return JSONResponse(told(error), status_code=error.status_code or 500)


class Middleware:
    """Stands around the application."""

    def __init__(self, app: Any, launch: Callable[[], None], destroy: Callable[[], None]) -> None:
        self.app, self.launch, self.destroy = app, launch, destroy

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._lifelong(send))
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _lifelong(self, send: Send) -> Send:
        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.launch()
            elif message["type"] == "lifespan.shutdown.complete":
                # In a thread: what is still awaited on this loop may need it to come to an end.
                await asyncio.to_thread(self.destroy)
            await send(message)

        return tell

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        request = _request(scope)
        request_id = request.id
        header = (ID_HEADER.encode(), request_id.encode())
        try:
            with in_request(request, request_id) as answer:

                async def tell(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        answer.began(message["status"])
                        others = [each for each in message.get("headers", ()) if each[0].lower() != header[0]]
                        message = {**message, "headers": [*others, header]}
                    await send(message)

                await self.app(scope, receive, tell)
        except BadKeyError as error:
            await _refuse(send, header, error)


async def _refuse(send: Send, header: tuple[bytes, bytes], error: DBOSException) -> None:
    body = json.dumps(told(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), header]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _request(scope: Message) -> Request:
    headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
    host = headers.get("host") or ":".join(map(str, scope.get("server") or ("",)))
    return Request(
        scope["method"],
        scope["path"],
        f"{scope.get('scheme', 'http')}://{host.rpartition('@')[2]}{scope['path']}",
        (scope.get("client") or ("",))[0],
        headers,
    )
