"""What the tests of both frameworks ask, and the spans that they look at."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from dbos import DBOS

KEY, ID = "dbos-idempotency-key", "x-request-id"


def check_handler_span(span: ReadableSpan, *, path: str, request_id: str, code: int) -> None:
    facts = dict(span.attributes or {})
    assert path == span.name
    assert {"operationType": "handler", "requestMethod": "GET", "responseCode": code}.items() <= facts.items()
    assert request_id == facts["requestID"]
    assert str(facts["requestURL"]).endswith(path)
    assert "secret" not in str(facts)


def check_ids(client: Any) -> None:
    """A key is an id, a second request gets the first one's result; without one each is a workflow of its own."""
    first, second = (client.get("/run", headers={KEY: "mine", ID: "r1"}) for _ in range(2))
    others = [client.get("/run") for _ in range(2)]

    assert ["mine", "mine"] == [first.text.strip('"'), second.text.strip('"')]
    assert "r1" == first.headers[ID]
    assert 3 == len({each.text for each in (first, *others)}) == len(DBOS.list_workflows())
    assert 2 == len({each.headers[ID] for each in others})


def check_bad_key(client: Any) -> None:
    refused = client.get("/run", headers={KEY: "x" * 2000})

    assert 400 == refused.status_code
    assert "dbos-idempotency-key" in refused.text
    assert [] == DBOS.list_workflows()
