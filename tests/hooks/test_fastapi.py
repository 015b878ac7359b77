"""FastAPI applications, on a real server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from dbos import DBOS
from dbos.error import DBOSException, DBOSInitializationError
from tests.hooks import web
from tests.hooks.test_telemetry import Seen, seen
from tests.waiting import eventually

__all__ = ["seen"]

Serve = Callable[..., "contextlib.AbstractContextManager[httpx.Client]"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an application, on a thread with a loop of its own; a client of it."""

    @contextlib.contextmanager
    def serving(app: FastAPI) -> Iterator[httpx.Client]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on", ws="none"))

        def run() -> None:
            with contextlib.suppress(SystemExit):  # how it says that it could not start
                server.run()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        eventually(lambda: server.started or not thread.is_alive())
        if not server.started:
            raise RuntimeError("the server did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)

    return serving


def configured(database: str, app: FastAPI | None = None, **more: Any) -> None:
    config = {"name": "web-app", "system_database_url": database, "application_version": "v1", "log_level": "CRITICAL"}
    DBOS(config={**config, "run_admin_server": False, **more}, fastapi=app)


def an_app(lifespan: Any = None) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @DBOS.workflow(name="sync_one")
    def sync_one() -> str:
        return str(DBOS.workflow_id)

    @DBOS.workflow(name="async_one")
    async def async_one() -> str:
        await DBOS.sleep_async(0.001)
        return str(DBOS.workflow_id)

    @app.get("/run")
    def run_sync() -> str:
        return sync_one()

    @app.get("/run_async")
    async def run_async() -> str:
        return await async_one()

    @app.get("/start")
    async def start() -> str:
        return (await DBOS.start_workflow_async(async_one)).workflow_id

    @app.get("/refused")
    def refused() -> None:
        raise DBOSException("not today", 42)

    @app.get("/forbidden")
    def forbidden() -> None:
        DBOS.set_authentication("ada", ["reader"])
        only_admins()

    @DBOS.required_roles(["admin"])
    @DBOS.workflow(name="only_admins")
    def only_admins() -> None:
        pass

    return app


def test_it_launches_and_ends_with_the_application(database: str, serve: Serve) -> None:
    """After the application's own start-up and shutdown, on its event loop."""
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        said.append("begins")
        yield
        said.append("ends")

    app = an_app(lifespan)
    configured(database, app)
    with serve(app) as client:
        answers = [client.get(path).json() for path in ("/run", "/run_async", "/start")]
        assert 3 == len(set(answers))
        eventually(lambda: {"SUCCESS"} == {each.status for each in DBOS.list_workflows()})
    assert ["begins", "ends"] == said
    with pytest.raises(DBOSException, match="No DBOS was created yet"):
        DBOS.list_workflows()


def test_ids_of_requests(database: str, serve: Serve) -> None:
    app = an_app()
    configured(database, app)
    with serve(app) as client:
        web.check_ids(client)


def test_a_key_that_cannot_be_an_id(database: str, serve: Serve) -> None:
    app = an_app()
    configured(database, app)
    with serve(app) as client:
        web.check_bad_key(client)


def test_errors_are_answers(database: str, serve: Serve) -> None:
    app = an_app()
    configured(database, app)
    with serve(app) as client:
        refused, forbidden = client.get("/refused"), client.get("/forbidden")

    told = {"message": "not today", "dbos_error_code": "42", "dbos_error": "DBOSException"}
    assert (500, told) == (refused.status_code, refused.json())
    assert (403, "DBOSNotAuthorizedError", "8") == (
        forbidden.status_code,
        *(forbidden.json()[key] for key in ("dbos_error", "dbos_error_code")),
    )


def test_a_request_is_a_span(database: str, serve: Serve, seen: Seen) -> None:
    """Its workflow is below it; and it is below who asked, if that says so."""
    app = an_app()
    configured(database, app, enable_otlp=True)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with serve(app) as client:
        headers = {web.ID: "r1", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        client.get("/run_async?token=secret", headers=headers)

    web.check_handler_span(seen.one("/run_async"), path="/run_async", request_id="r1", code=200)
    assert int(trace_id, 16) == seen.one("/run_async").context.trace_id == seen.one("async_one").context.trace_id
    assert "/run_async" in seen.above("async_one")


def test_a_launch_that_fails_is_a_start_up_that_fails(serve: Serve) -> None:
    app = an_app()
    configured("sqlite:////nowhere/at/all.sqlite", app)
    with pytest.raises(RuntimeError, match="did not start"), serve(app):
        pass


def test_the_other_way_is_a_lifespan(database: str, serve: Serve) -> None:
    """Launch and destroy by hand, as applications do that pass nothing."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        configured(database)
        DBOS.launch()
        yield
        DBOS.destroy()

    with serve(an_app(lifespan)) as client:
        assert client.get("/run_async").json() in {each.workflow_id for each in DBOS.list_workflows()}


def test_what_is_no_application_is_refused(database: str) -> None:
    with pytest.raises(DBOSInitializationError, match="takes a FastAPI application, not int"):
        configured(database, 3)
