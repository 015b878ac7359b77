"""What the package offers by name, and what it needs to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dbos

NAMES = """AsyncSQLAlchemyDatasource SQLAlchemyDatasource DBOS DBOSClient EnqueueOptions DBOSConfig DBOSConfiguredInstance DBOSContextEnsure DBOSContextSetAuth PortableWorkflowError
SetWorkflowID SetWorkflowTimeout StepInfo StepOptions VersionInfo WorkflowHandle WorkflowHandleAsync
WorkflowSerializationFormat WorkflowStatus WorkflowStatusString error Serializer pydantic_args_validator
make_pydantic_args_validator run_dbos_database_migrations DBOSPortableJSONSerializer SendMessage
ScheduleInput ClientScheduleInput WorkflowSchedule Debouncer DebouncerClient SetWorkflowAttributes StepReservation
KafkaMessage DuplicationPolicy WorkflowIDReusePolicy""".split()

OPERATIONS = """run_step get_result get_workflow_status retrieve_workflow wait_first list_workflows
list_queued_workflows list_workflow_steps cancel_workflow cancel_workflows resume_workflow resume_workflows
fork_workflow delete_workflow delete_workflows set_workflow_delay sleep start_workflow list_application_versions
get_latest_application_version set_latest_application_version send send_bulk recv set_event get_event get_all_events
write_stream close_stream read_stream read_stream_offset create_schedule
apply_schedules list_schedules get_schedule pause_schedule resume_schedule delete_schedule backfill_schedule
trigger_schedule patch deprecate_patch rewind_workflow update_workflow_attributes enqueue_workflow_with_options
""".split()

BARE = """
import sys
for name in ("opentelemetry", "pydantic", "fastapi", "flask", "pandas", "IPython"):
    sys.modules[name] = None
from dbos import DBOS
@DBOS.step()
def one():
    return 1
@DBOS.workflow()
def work():
    return one()
if __name__ == "__main__":
    DBOS(config={"name": "bare", "run_admin_server": False})
    DBOS.launch()
    print(work(), DBOS.start_workflow(work).get_result())
    DBOS.destroy()
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_exported(name: str) -> None:
    assert name in dbos.__all__
    assert hasattr(dbos, name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_both_colours(name: str) -> None:
    assert callable(getattr(dbos.DBOS, name))
    assert callable(getattr(dbos.DBOS, f"{name}_async"))


def test_a_bare_installation_is_enough(tmp_path: Path) -> None:
    """Without telemetry, validation or web packages everything is imported and runs."""
    (tmp_path / "bare.py").write_text(BARE)
    ended = subprocess.run(
        [sys.executable, "bare.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "1 1\n") == (ended.returncode, ended.stdout), ended.stderr


def test_a_program_ends_when_its_main_thread_does(tmp_path: Path) -> None:
    """Also without destroy: nothing of the runtime keeps the process."""
    (tmp_path / "bare.py").write_text(BARE.replace("    DBOS.destroy()\n", ""))
    ended = subprocess.run(
        [sys.executable, "bare.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "1 1\n") == (ended.returncode, ended.stdout), ended.stderr
