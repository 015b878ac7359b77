"""Flask applications."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from dbos import DBOS
from dbos.error import DBOSInitializationError
from tests.hooks import web
from tests.hooks.test_telemetry import Seen, seen

__all__ = ["seen"]


@pytest.fixture
def flask_app() -> Flask:
    app = Flask("tests")

    @DBOS.workflow(name="one")
    def one() -> str:
        return str(DBOS.workflow_id)

    @app.get("/run")
    def run() -> str:
        return one()

    return app


def launched(database: str, app: Any, **more: Any) -> Any:
    config = {"name": "web-app", "system_database_url": database, "application_version": "v1", "log_level": "CRITICAL"}
    DBOS(config={**config, "run_admin_server": False, **more}, flask=app)
    DBOS.launch()
    return app.test_client()


def test_ids_of_requests(database: str, flask_app: Flask) -> None:
    web.check_ids(launched(database, flask_app))


def test_a_key_that_cannot_be_an_id(database: str, flask_app: Flask) -> None:
    web.check_bad_key(launched(database, flask_app))


def test_a_request_is_a_span(database: str, flask_app: Flask, seen: Seen) -> None:
    client = launched(database, flask_app, enable_otlp=True)
    client.get("/run?token=secret", headers={web.ID: "r1"})

    web.check_handler_span(seen.one("/run"), path="/run", request_id="r1", code=200)
    assert "/run" == seen.tree()["one"]


def test_what_is_no_application_is_refused(database: str) -> None:
    with pytest.raises(DBOSInitializationError, match="takes a Flask application, not int"):
        DBOS(config={"name": "web-app", "system_database_url": database}, flask=3)
