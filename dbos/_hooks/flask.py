"""Flask: see its requests. The program launches the runtime itself, because Flask has no start-up of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from dbos._hooks.requests import ID_HEADER, BadKeyError, Request, in_request, told
from dbos.error import DBOSInitializationError

Environment = dict[str, Any]
Start = Callable[..., Any]


def install(app: Any) -> None:
    """Have this application's requests told apart."""
    if not hasattr(app, "wsgi_app"):
        raise DBOSInitializationError(f"flask= takes a Flask application, not {type(app).__name__}")
    app.wsgi_app = Middleware(app.wsgi_app)


class Middleware:
    """Stands around the application. What it streams after it returned is not seen."""

    def __init__(self, app: Callable[[Environment, Start], Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: Environment, start: Start) -> Iterable[bytes]:
        request = _request(environ)
        request_id = request.id
        try:
            with in_request(request, request_id) as answer:

                def tell(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                    answer.began(int(status.split(maxsplit=1)[0]))
                    others = [each for each in headers if each[0].lower() != ID_HEADER]
                    return start(status, [*others, (ID_HEADER, request_id)], *rest)

                return self.app(environ, tell)
        except BadKeyError as error:
            body = json.dumps(told(error)).encode()
            status = f"{HTTPStatus.BAD_REQUEST.value} {HTTPStatus.BAD_REQUEST.phrase}"
            start(status, [("content-type", "application/json"), ("content-length", str(len(body)))])
            return [body]


def _request(environ: Environment) -> Request:
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    host = headers.get("host") or environ.get("SERVER_NAME", "")
    return Request(
        environ["REQUEST_METHOD"],
        path,
        f"{environ.get('wsgi.url_scheme', 'http')}://{host.rpartition('@')[2]}{path}",
        environ.get("REMOTE_ADDR", ""),
        headers,
    )
