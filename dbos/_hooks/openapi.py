"""What an HTTP endpoint takes and gives: JSON schemas, by which requests are checked and an OpenAPI document is made.

One schema serves both, so the document cannot promise what the server does not keep. Only the few words of JSON
Schema that our endpoints need are understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dbos._kernel.clock import epoch_ms_of

Schema = Mapping[str, Any]

TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
# What no database of ours can hold in a text.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


class Refusal(Exception):  # noqa: N818 - an answer, and not a fault of ours
    """A request is not done: the status code and what is said to the client."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def check(schema: Schema, value: Any, where: str) -> None:
    """Refuse a value that the schema does not describe, saying which and why."""
    if "anyOf" in schema:
        _check_any(schema["anyOf"], value, where)
        return
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(TYPES[name](value) for name in names):
        raise Refusal(400, f"{where} must be of type {' or '.join(names)}, not {_type(value)}")
    if "enum" in schema and value not in schema["enum"]:
        raise Refusal(400, f"{where} must be one of {', '.join(map(str, schema['enum']))}, not {value!r}")
    if isinstance(value, str):
        _check_text(schema, value, where)
    elif isinstance(value, int):
        least, most = schema.get("minimum"), schema.get("maximum")
        if (least is not None and value < least) or (most is not None and value > most):
            raise Refusal(400, f"{where} must be from {least} to {most}")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            check(schema["items"], each, f"{where}[{place}]")
    elif isinstance(value, dict):
        _check_fields(schema, value, where)


def _check_any(schemas: Iterable[Schema], value: Any, where: str) -> None:
    refusal: Refusal | None = None
    for schema in schemas:
        try:
            check(schema, value, where)
        except Refusal as reason:
            # The most telling reason is that of the schema whose type fits.
            refusal = reason if refusal is None or TYPES[schema["type"]](value) else refusal
        else:
            return
    assert refusal is not None
    raise refusal


def _check_text(schema: Schema, value: str, where: str) -> None:
    if UNSTORABLE.search(value):
        raise Refusal(400, f"{where} contains a character that cannot be stored")
    if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
        raise Refusal(400, f"{where} is too short or too long")
    if schema.get("format") == "date-time":
        try:
            epoch_ms_of(value)
        except (ValueError, OverflowError, OSError):
            raise Refusal(400, f"{where} is not a moment such as 2030-12-31T23:59:00Z") from None


def _check_fields(schema: Schema, value: Mapping[str, Any], where: str) -> None:
    known = schema["properties"]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise Refusal(400, f"{where} has no field {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise Refusal(400, f"{where} must have the field {', '.join(missing)}")
    for name, each in value.items():
        check(known[name], each, f"{where}.{name}")


def _type(value: Any) -> str:
    return next((name for name, is_one in TYPES.items() if is_one(value)), "number")


def record(**fields: Schema) -> dict[str, Any]:
    """The schema of an object, none of whose fields must be there and which has no others."""
    return {"type": "object", "properties": fields, "additionalProperties": False}


def full_record(fields: Iterable[str], of: Schema) -> dict[str, Any]:
    """The schema of an object that has all these fields, of one type."""
    names = list(fields)
    return {"type": "object", "properties": dict.fromkeys(names, of), "required": names}


def array(of: Schema) -> dict[str, Any]:
    return {"type": "array", "items": of}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path: what it does, takes and gives."""

    method: str
    #: A part in braces is a parameter.
    path: str
    summary: str
    #: Gets what was asked; what it returns is sent as JSON, and as plain text where there is a media type of its own.
    answer: Callable[..., Any]
    body: Schema | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    status: int = 200
    #: None: it gives nothing.
    result: Schema | None = None
    media_type: str = "application/json"
    #: The status codes of refusals of its own, and of those that say nothing but their code.
    refusals: tuple[int, ...] = ()
    silent_refusals: tuple[int, ...] = ()
    #: What a body comes to that is no JSON.
    unreadable_status: int = 400
    #: It asks nothing of the database, so it waits for no turn.
    is_instant: bool = False
    #: It changes something although it is a GET.
    changes: bool = False


# What any request may come to, with the reasons.
REFUSALS = {
    400: "The request is not understood",
    401: "The token is missing or wrong",
    403: "The request comes from a web page, or is not addressed to this server",
    404: "There is no such workflow",
    408: "The request took too long to arrive",
    409: "The id belongs to another workflow",
    411: "The length of the body is not said",
    413: "The body is too long",
    500: "It failed",
    503: "The database does not answer, or the server has too many connections",
}
ALWAYS = (400, 401, 403, 408, 500, 503)


def document(
    endpoints: Iterable[Endpoint], *, title: str, version: str, server: str, has_token: bool
) -> dict[str, Any]:
    """The OpenAPI document of these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": server}],
        "paths": paths,
    }
    if has_token:
        found["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"token": []}]
    return found


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in parameters_of(endpoint.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": each} for name, each in endpoint.query.items()]
    answer: dict[str, Any] = {"description": endpoint.summary}
    if endpoint.result is not None:
        answer["content"] = {endpoint.media_type: {"schema": endpoint.result}}
    more = (411, 413) if endpoint.method == "POST" else ()
    refusals = sorted({*ALWAYS, *more, *endpoint.refusals})
    failed = {"content": {"application/json": {"schema": ERROR}}}
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^a-z]+', '_', endpoint.path)}",
        "responses": {
            str(endpoint.status): answer,
            **{str(status): {"description": REFUSALS[status], **failed} for status in refusals},
            **{str(status): {"description": REFUSALS[status]} for status in endpoint.silent_refusals},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body["type"] != "object",
            "content": {"application/json": {"schema": endpoint.body}},
        }
    return operation


def parameters_of(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)
