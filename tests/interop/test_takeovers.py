"""Work left by a killed process of one package is finished by another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import Begin
from tests.waiting import eventually


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize(
    ("dead", "heir"), [("2.18.0", "ours"), ("ours", "2.18.0"), ("3.4.0", "ours"), ("ours", "3.4.0")]
)
def test_the_work_of_the_dead_is_finished(place: str, begin: Begin, tmp_path: Path, dead: str, heir: str) -> None:
    """Killed in the middle of a child, a direct one and one from a queue; no step that was recorded is repeated."""
    notes = {name: tmp_path / f"{name}.txt" for name in ("direct", "queued")}
    gate = tmp_path / "gate"
    victim, client = begin(dead), begin("ours")
    victim("launch", url=place, executor_id="same")
    client("connect", url=place)
    victim("start", name="parent", workflow_id="direct", args=[str(notes["direct"]), str(gate)])
    client("enqueue", name="parent", workflow_id="queued", args=[str(notes["queued"]), str(gate)], portable=False)
    for file in notes.values():
        eventually(lambda: lines(file))
    for workflow_id in notes:
        eventually(lambda: [1, "note"] in client("steps", workflow_id=f"{workflow_id}-4"))
    victim.kill()
    gate.touch()

    successor = begin(heir)
    successor("launch", url=place, executor_id="same")
    for workflow_id, file in notes.items():
        client("send", workflow_id=workflow_id, message="mail", topic="late", portable=False)
        assert [3, 5, "mail"] == client("result", workflow_id=workflow_id)
        assert ["1", "2"] == lines(file)
        assert [1, 2] == client("stream", workflow_id=workflow_id, key="s")
        assert "gate" == client("event", workflow_id=workflow_id, key="at")
    client("end")
    successor("end")
