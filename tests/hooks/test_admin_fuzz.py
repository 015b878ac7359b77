"""The admin server against its own OpenAPI document: whatever is sent, it answers as it promises."""

from __future__ import annotations

from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.hooks.conftest import Launch  # noqa: E402

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.mark.filterwarnings("ignore")
def test_it_keeps_what_its_document_promises(admin: Launch) -> None:
    client = admin()
    document = client.ask("GET", "/openapi.json").json
    schema = schemathesis.openapi.from_dict(document)
    # With the name that the server answers to.
    schema.config.update(base_url=client.url)
    tried: list[str] = []

    for found in schema.get_all_operations():
        operation: Any = found.ok()

        @settings(
            max_examples=15,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def fuzz(case: Any) -> None:
            tried.append(case.operation.label)
            case.call_and_validate(checks=CHECKS)

        from hypothesis import given

        given(case=operation.as_strategy())(fuzz)()

    assert {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods} == set(
        tried
    )
