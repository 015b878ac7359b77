"""Who may talk to the admin server: no web page, no other name, nobody without the token; and nobody for too long."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from dbos import DBOS
from dbos._hooks import admin_http
from dbos.error import DBOSInitializationError
from tests.conftest import App
from tests.hooks.conftest import Admin, Launch, served
from tests.waiting import eventually

TOKEN = "canary-7f3a"


@pytest.fixture
def database(tmp_path: Any) -> str:
    """None of this depends on the database."""
    return f"sqlite:///{tmp_path}/test.sqlite"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_it_answers_to_its_own_names(admin: Launch, name: str) -> None:
    client = admin()

    assert 200 == client.ask("GET", "/dbos-healthz", Host=f"{name}:{client.port}").status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "localhost:1", "localhost.evil:{port}", ""]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(admin: Launch, host: str) -> None:
    client = admin()

    assert 403 == client.ask("GET", "/dbos-healthz", Host=host.format(port=client.port)).status


def test_a_request_has_one_host(admin: Launch) -> None:
    client = admin()

    assert 400 == client.ask("GET", "/dbos-healthz", Host=None).status
    two = f"GET /dbos-healthz HTTP/1.1\r\nHost: localhost:{client.port}\r\nHost: evil\r\n\r\n"
    assert 400 == client.raw(two.encode()).status


@pytest.mark.parametrize(
    "signs",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/dbos-healthz", None),
        ("POST", "/workflows", "application/json"),
        ("POST", "/workflows/none/cancel", "text/plain"),
        ("POST", "/dbos-garbage-collect", "application/x-www-form-urlencoded"),
        ("GET", "/openapi.json", None),
        ("GET", "/there-is-no-such-path", None),
        ("OPTIONS", "/workflows", None),
    ],
)
def test_no_web_page_is_heard(admin: Launch, signs: dict[str, str], method: str, path: str, kind: str | None) -> None:
    client = admin()
    given = {name: value.format(port=client.port) for name, value in signs.items()}

    answer = client.ask(method, path, {} if method == "POST" else None, Content_Type=kind, **given)

    assert 403 == answer.status
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "signs", [{"Sec-Fetch-Site": "none"}, {"Referer": "http://evil.example/"}, {"User-Agent": "Mozilla/5.0 (X11)"}]
)
def test_an_image_on_a_page_cannot_deactivate(admin: Launch, signs: dict[str, str]) -> None:
    client = admin()

    assert 403 == client.ask("GET", "/deactivate", **signs).status
    assert not served().runtime.is_deactivated


def test_a_token_is_needed_where_one_is_set(admin: Launch) -> None:
    client = admin(admin_token=TOKEN)

    for given in (None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ", "Bearer \xfc"):
        answer = client.ask("GET", "/dbos-healthz", Authorization=given)
        assert (401, "Bearer") == (answer.status, answer.headers["www-authenticate"])
        assert TOKEN not in str(answer)
    assert 200 == client.ask("GET", "/dbos-healthz", Authorization=f"Bearer {TOKEN}").status
    assert 403 == client.ask("GET", "/dbos-healthz", Authorization=f"Bearer {TOKEN}", Origin="http://evil").status


def test_the_token_may_be_in_the_environment(admin: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS_ADMIN_TOKEN", TOKEN)
    client = admin()

    assert 401 == client.ask("GET", "/dbos-healthz").status
    assert 200 == client.ask("GET", "/dbos-healthz", Authorization=f"bearer {TOKEN}").status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "my-machine"])
def test_other_machines_need_a_token(app: App, host: str) -> None:
    with pytest.raises(DBOSInitializationError, match="needs a token"):
        app.launch(run_admin_server=True, admin_port=0, admin_host=host)


def test_with_a_token_it_listens_where_it_is_told_to(admin: Launch) -> None:
    client = admin(admin_host="0.0.0.0", admin_token=TOKEN)

    assert 200 == client.ask("GET", "/dbos-healthz", Host="anything", Authorization=f"Bearer {TOKEN}").status
    assert 401 == client.ask("GET", "/dbos-healthz", Host="anything").status


@pytest.mark.parametrize(
    "config", [{"admin_port": "3001"}, {"admin_port": 65536}, {"admin_host": 5}, {"admin_token": "\xfc\n"}]
)
def test_a_setting_that_makes_no_sense_is_refused(app: App, config: dict[str, Any]) -> None:
    with pytest.raises(DBOSInitializationError, match=next(iter(config))):
        app.launch(run_admin_server=True, **config)


def test_the_token_is_in_no_text(admin: Launch, caplog: pytest.LogCaptureFixture) -> None:
    client = admin(admin_token=TOKEN, log_level="DEBUG")
    client.ask("GET", "/dbos-healthz", Authorization=f"Bearer {TOKEN}")

    made = served()
    assert TOKEN not in repr((made, made.settings, made.__dict__, client.ask("GET", "/openapi.json")))
    assert TOKEN not in caplog.text


def test_a_taken_port_is_a_warning(app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DBOS.logger, "propagate", True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with caplog.at_level(logging.WARNING, logger="dbos"):
            app.launch(run_admin_server=True, admin_port=port, log_level="WARNING")

        assert served().port is None
        assert f"127.0.0.1:{port}" in caplog.text
        assert [] == DBOS.list_workflows()
        DBOS.destroy()


def test_a_body_that_is_too_long_is_refused_and_not_read(admin: Launch) -> None:
    client = admin()

    answer = client.ask("POST", "/workflows", b"x" * 3_000_000)
    assert 413 == answer.status
    assert 413 == client.ask("POST", "/workflows", Content_Length="9" * 30).status
    assert 400 == client.ask("POST", "/workflows", Content_Length="-1").status
    assert 400 == client.ask("POST", "/workflows", Content_Length="1, 1").status


def test_who_sends_slowly_is_cut_off_and_nobody_waits_for_it(admin: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_http, "REQUEST_SECONDS", 0.5)
    client = admin()
    with client.connect() as slow:
        slow.sendall(b"POST /workflows HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 10\r\n\r\n{" % client.port)
        ended = threading.Event()
        drip = threading.Thread(target=_drip, args=(slow, ended))
        drip.start()

        assert 200 == client.ask("GET", "/dbos-healthz").status
        assert 408 == client.read(slow).status
        ended.set()
        drip.join()


def _drip(connection: socket.socket, ended: threading.Event) -> None:
    """Send a byte now and then, for ever."""
    try:
        while not ended.wait(0.1):
            connection.sendall(b" ")
    except OSError:
        return


def test_who_says_nothing_keeps_nobody_from_being_heard(admin: Launch) -> None:
    client = admin()
    held = [client.connect() for _ in range(100)]
    eventually(lambda: len(served()._connections) == len(held))

    assert b"healthy" == client.ask("GET", "/dbos-healthz").body
    assert 200 == client.ask("POST", "/workflows", {}).status
    for each in held:
        each.close()


def test_health_is_told_while_all_wait_for_the_database(admin: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_http, "TURN_SECONDS", 0.1)
    client, turns = admin(), served()._turns
    taken = 0
    while turns.acquire(blocking=False):
        taken += 1

    assert 503 == client.ask("POST", "/workflows", {}).status
    assert 200 == client.ask("GET", "/dbos-healthz").status
    turns.release(taken)
    assert 200 == client.ask("POST", "/workflows", {}).status


def test_many_connections_at_once_are_turned_away_and_then_served(admin: Launch) -> None:
    from dbos._hooks.admin import MOST_CONNECTIONS

    client = admin()
    held = [client.connect() for _ in range(MOST_CONNECTIONS)]
    eventually(lambda: len(served()._connections) == MOST_CONNECTIONS)

    with client.connect() as one_more:
        assert 503 == client.read(one_more).status
    for each in held:
        each.close()
    eventually(lambda: not served()._connections)
    assert 200 == client.ask("GET", "/dbos-healthz").status


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /dbos-healthz\r\n\r\n",
        b"GET /dbos-healthz HTTP/3.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_nonsense_gets_an_answer(admin: Launch, sent: bytes) -> None:
    answer = admin().raw(sent)

    assert 400 <= answer.status < 600
    assert answer.json["error"]


def test_a_client_that_leaves_does_no_harm(admin: Launch) -> None:
    client: Admin = admin()
    for sent in (b"", b"GET /dbos", b"GET /openapi.json HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % client.port):
        with client.connect() as connection:
            connection.sendall(sent)

    eventually(lambda: not served()._connections)
    assert 200 == client.ask("GET", "/dbos-healthz").status


FORKING = """
import os, socket, sys
from dbos import DBOS
from dbos._faces.ambient import instance

DBOS(config={"name": "forking", "system_database_url": sys.argv[1], "admin_port": 0, "log_level": "ERROR"})
DBOS.launch()
port = instance().launched.services[-1].port
wait, go = os.pipe()
look, there = os.pipe()
if os.fork() == 0:
    os.write(there, b".")
    os.close(go)
    os.read(wait, 1)
    os._exit(0)
os.read(look, 1)
DBOS.destroy()
with socket.socket() as again:
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("127.0.0.1", port))
    again.listen()
    print("free")
os.close(go)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")
def test_a_forked_child_does_not_hold_the_port(database: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, database], capture_output=True, text=True, timeout=60, check=False
    )

    assert ("free\n", 0) == (ended.stdout, ended.returncode), ended.stderr
