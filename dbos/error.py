"""The tree of errors. Every one survives pickling, because every one may become a workflow's recorded outcome.

    DBOSException                                     an ordinary error, `except Exception` sees it
      DBOSRecoveryError                            2  DBOSInitializationError                         3
      DBOSWorkflowFunctionNotFoundError            4  DBOSNonExistentWorkflowError                    5
      MaxRecoveryAttemptsExceededError             6  DBOSMaxStepRetriesExceeded                      7
      DBOSNotAuthorizedError                       8  DBOSConflictingWorkflowError                    9
      DBOSUnexpectedStepError                     11  DBOSQueueDeduplicatedError                     12
      DBOSAwaitedWorkflowCancelledError           13  DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded 14
      DBOSPatchNondeterminismError                15
      DBOSStreamTimeoutError                      16  DBOSStreamNondeterminismError                  17
      DBOSStepTimeoutError                        18
      DBOSConflictingRegistrationError            25  DBOSStepNondeterminismError                    28
      DBOSWorkflowIDInUseError                    27
      DBOSMisuseError (also an AssertionError)        DBOSSerializationError (also a TypeError)
      DBOSSchemaError                                 DBOSDatabaseUnavailableError
      DBOSReadOnlyError                               DBOSQueryTimeoutError
      DBOSStepWorkerLostError
    DBOSBaseException                                 control flow: passes through `except Exception`
      DBOSWorkflowConflictIDError                  1  DBOSWorkflowCancelledError                     10
      DBOSRuntimeEndedError
    DBOSConcurrentReceiveError                     1  both: an ordinary error under a name that programs know

The constructor's arguments are `args`: that is what pickle calls to rebuild an error, and what other
DBOS programs find when they read one. `__module__` says `dbos._error`, the path under which they look.
"""

from __future__ import annotations

from enum import Enum


class DBOSErrorCode(Enum):
    """The number in `DBOS Error <number>`."""

    ConflictingIDError = 1
    RecoveryError = 2
    InitializationError = 3
    WorkflowFunctionNotFound = 4
    NonExistentWorkflowError = 5
    MaxRecoveryAttemptsExceeded = 6
    MaxStepRetriesExceeded = 7
    NotAuthorized = 8
    ConflictingWorkflowError = 9
    WorkflowCancelled = 10
    UnexpectedStep = 11
    QueueDeduplicated = 12
    AwaitedWorkflowCancelled = 13
    AwaitedWorkflowMaxRecoveryAttemptsExceeded = 14
    PatchNondeterminism = 15
    StreamTimeout = 16
    StreamNondeterminism = 17
    StepTimeout = 18
    ConflictingRegistrationError = 25
    WorkflowIDInUse = 27
    StepNondeterminism = 28


class _Coded:
    """What both bases share: a message, a code, and a `str()` made of them."""

    code: DBOSErrorCode | None = None
    message: str
    dbos_error_code: int | None
    status_code: int | None

    def _describe(self, message: str, code: int | None = None) -> None:
        self.message = message
        self.dbos_error_code = self.code.value if self.code is not None else code
        self.status_code = None

    def __str__(self) -> str:
        code = f" {self.dbos_error_code}" if self.dbos_error_code is not None else ""
        return f"DBOS Error{code}: {self.message}"


class DBOSException(_Coded, Exception):  # noqa: N818 - its name in every DBOS program
    """Any error of this package that user code may catch."""

    def __init__(self, message: str, dbos_error_code: int | None = None) -> None:
        super().__init__(message, dbos_error_code)
        self._describe(message, dbos_error_code)


class DBOSBaseException(_Coded, BaseException):
    """Control flow that `except Exception` in user code must not swallow."""

    def __init__(self, message: str, dbos_error_code: int | None = None) -> None:
        super().__init__(message, dbos_error_code)
        self._describe(message, dbos_error_code)


class DBOSWorkflowConflictIDError(DBOSBaseException):
    """Another execution owns this workflow now; this one stops and waits for the other's outcome."""

    code = DBOSErrorCode.ConflictingIDError

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id,)
        self._describe(f"Workflow {workflow_id} is being executed elsewhere; this execution stops.")


class DBOSWorkflowCancelledError(DBOSBaseException):
    """Raised inside a workflow that was cancelled, at its next operation."""

    code = DBOSErrorCode.WorkflowCancelled

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.args = (message,)


class DBOSRuntimeEndedError(DBOSBaseException):
    """Raised inside a workflow whose runtime was destroyed: it stops here and goes on elsewhere."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.args = (message,)


class _OneMessage(DBOSException):
    """An error that is its message; a second argument, as other writers pickle it, is (id, message)."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.args = (message,) if detail is None else (message, detail)
        self._describe(message if detail is None else f"{detail} (workflow ID: {message})")


class DBOSRecoveryError(_OneMessage):
    """A workflow was to be executed by its id, but there is no such row."""

    code = DBOSErrorCode.RecoveryError


class DBOSInitializationError(_OneMessage):
    """The configuration is wrong, or DBOS was used before it was ready."""

    code = DBOSErrorCode.InitializationError


class DBOSWorkflowFunctionNotFoundError(_OneMessage):
    """A workflow names a function, class or instance that this process has not registered."""

    code = DBOSErrorCode.WorkflowFunctionNotFound


class DBOSConflictingWorkflowError(_OneMessage):
    """The workflow id is taken by a different function, class or instance."""

    code = DBOSErrorCode.ConflictingWorkflowError


class DBOSConflictingRegistrationError(_OneMessage):
    """A name was decorated twice, as two different kinds of function."""

    code = DBOSErrorCode.ConflictingRegistrationError


class DBOSNotAuthorizedError(DBOSException):
    """The authenticated user has none of the roles that the function requires."""

    code = DBOSErrorCode.NotAuthorized

    def __init__(self, msg: str) -> None:
        super().__init__(msg)
        self.args = (msg,)
        self.msg = msg
        self.status_code = 403


class DBOSNonExistentWorkflowError(DBOSException):
    """No workflow has this id. `destination` says what looked for it: `send`, `target`, `fork` ..."""

    code = DBOSErrorCode.NonExistentWorkflowError

    def __init__(self, destination: str, destination_id: str | None = None) -> None:
        super().__init__(destination)
        self.destination, self.destination_id = destination, destination_id
        if destination_id is None:  # written by a release that pickled the finished message alone
            self.args = (destination,)
            self._describe(destination)
        else:
            self.args = (destination, destination_id)
            self._describe(f"Non-existent `{destination}` destination workflow ID: {destination_id}")


class MaxRecoveryAttemptsExceededError(DBOSException):
    """The workflow was started more often than its function allows, and is dead-lettered."""

    code = DBOSErrorCode.MaxRecoveryAttemptsExceeded

    def __init__(self, workflow_id: str, max_retries: int | None = None) -> None:
        super().__init__(workflow_id)
        self.workflow_id, self.max_retries = workflow_id, max_retries
        if max_retries is None:  # see DBOSNonExistentWorkflowError
            self.args = (workflow_id,)
            self._describe(workflow_id)
        else:
            self.args = (workflow_id, max_retries)
            self._describe(
                f"Workflow {workflow_id} has exceeded its maximum of {max_retries} recovery attempts. "
                "Mend its code and resume it, or fork it from the step that kills it."
            )


class DBOSMaxStepRetriesExceeded(DBOSException):
    """Every allowed attempt of a step failed; `errors` holds the exception of each."""

    code = DBOSErrorCode.MaxStepRetriesExceeded

    def __init__(self, step_name: str, max_retries: int, errors: list[Exception]) -> None:
        super().__init__(step_name)
        self.args = (step_name, max_retries, errors)
        self.step_name, self.max_retries, self.errors = step_name, max_retries, errors
        self._describe(f"Step {step_name} has exceeded its maximum of {max_retries} retries")


class DBOSUnexpectedStepError(DBOSException):
    """Replay met a different step than the one recorded: the code changed, or is not deterministic."""

    code = DBOSErrorCode.UnexpectedStep

    def __init__(self, workflow_id: str, step_id: int, expected_name: str, recorded_name: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, step_id, expected_name, recorded_name)
        self.workflow_id, self.step_id = workflow_id, step_id
        self.expected_name, self.recorded_name = expected_name, recorded_name
        self._describe(
            f"During execution of workflow {workflow_id} step {step_id}, function {recorded_name} was recorded "
            f"when {expected_name} was expected. Guard changed code with DBOS.patch, or finish old runs on "
            "their own version."
        )


class DBOSStepNondeterminismError(DBOSException):
    """One execution recorded the same step id twice with different content."""

    code = DBOSErrorCode.StepNondeterminism

    def __init__(self, workflow_id: str, step_id: int, step_name: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, step_id, step_name)
        self.workflow_id, self.step_id, self.step_name = workflow_id, step_id, step_name
        self._describe(
            f"Workflow {workflow_id} already recorded step {step_id} with another result than {step_name!r} has now. "
            "Two operations took the same step id: do not call DBOS from threads that the workflow starts itself."
        )


class DBOSPatchNondeterminismError(DBOSException):
    """A workflow began another operation while it awaited `DBOS.patch_async`: their order is left to chance."""

    code = DBOSErrorCode.PatchNondeterminism

    def __init__(self, workflow_id: str, step_id: int, patch_name: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, step_id, patch_name)
        self.workflow_id, self.step_id, self.patch_name = workflow_id, step_id, patch_name
        self._describe(
            f"Workflow {workflow_id} ran other operations concurrently with the patch {patch_name!r} (step {step_id}). "
            "Await DBOS.patch_async before anything else is started."
        )


class DBOSQueueDeduplicatedError(DBOSException):
    """The queue already holds an unfinished workflow with this deduplication id."""

    code = DBOSErrorCode.QueueDeduplicated

    def __init__(self, workflow_id: str, queue_name: str, deduplication_id: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, queue_name, deduplication_id)
        self.workflow_id, self.queue_name, self.deduplication_id = workflow_id, queue_name, deduplication_id
        self._describe(
            f"Workflow {workflow_id} was deduplicated due to an existing workflow in queue {queue_name} "
            f"with deduplication ID {deduplication_id}."
        )


class DBOSWorkflowIDInUseError(DBOSException):
    """A workflow has this id already, and `workflow_id_reuse_policy="reject"` wants a new one."""

    code = DBOSErrorCode.WorkflowIDInUse

    def __init__(self, workflow_id: str, workflow_status: str | None = None, workflow_name: str | None = None) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, workflow_status, workflow_name)
        self.workflow_id, self.workflow_status, self.workflow_name = workflow_id, workflow_status, workflow_name
        self._describe(
            f"Workflow ID {workflow_id} is already in use by workflow {workflow_name} with status {workflow_status}."
        )


class DBOSAwaitedWorkflowCancelledError(DBOSException):
    """The workflow whose result was awaited is cancelled."""

    code = DBOSErrorCode.AwaitedWorkflowCancelled

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id,)
        self.workflow_id = workflow_id
        self._describe(f"Awaited workflow {workflow_id} was cancelled")


class DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded(DBOSException):
    """The workflow whose result was awaited is dead-lettered."""

    code = DBOSErrorCode.AwaitedWorkflowMaxRecoveryAttemptsExceeded

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id,)
        self.workflow_id = workflow_id
        self._describe(f"Awaited workflow {workflow_id} has exceeded its maximum number of recovery attempts")


class DBOSConcurrentReceiveError(DBOSWorkflowConflictIDError, Exception):
    """A workflow called `recv` for a topic while another `recv` of it waited for the same: which gets what?"""

    def __init__(self, workflow_id: str, topic: str | None = None) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, topic)
        self.workflow_id, self.topic = workflow_id, topic
        which = "messages without a topic" if topic is None else f"messages of topic {topic!r}"
        self._describe(f"Workflow {workflow_id} is waiting for {which} already; let one recv() follow the other.")


class DBOSStreamTimeoutError(DBOSException):
    """No value arrived on a stream in time, or the stream ended before the value that was asked for."""

    code = DBOSErrorCode.StreamTimeout

    def __init__(self, workflow_id: str, key: str | None = None, timeout_seconds: float | None = None) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id, key, timeout_seconds)
        self.workflow_id, self.key, self.timeout_seconds = workflow_id, key, timeout_seconds
        within = "" if timeout_seconds is None else f" within {timeout_seconds} seconds"
        self._describe(f"No value arrived on stream {key} of workflow {workflow_id}{within}")


class DBOSStreamNondeterminismError(DBOSException):
    """A workflow read two streams at the same time: which value came first would be chance, and not repeatable."""

    code = DBOSErrorCode.StreamNondeterminism

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.args = (workflow_id,)
        self.workflow_id = workflow_id
        self._describe(
            f"Workflow {workflow_id} read two streams at once. Read one after the other, or each in a child workflow."
        )


class DBOSStepTimeoutError(DBOSException):
    """An attempt of a step took longer than the step's `timeout_seconds`."""

    code = DBOSErrorCode.StepTimeout

    def __init__(self, step_name: str, timeout_seconds: float) -> None:
        super().__init__(step_name)
        self.args = (step_name, timeout_seconds)
        self.step_name, self.timeout_seconds = step_name, timeout_seconds
        self._describe(f"Step {step_name} took longer than its timeout of {timeout_seconds} seconds")


class DBOSStepWorkerLostError(DBOSException):
    """The process that ran a step on its executor was lost; whether the step had an effect is not known."""

    def __init__(self, step_name: str, reason: str) -> None:
        super().__init__(step_name)
        self.args = (step_name, reason)
        self.step_name, self.reason = step_name, reason
        self._describe(f"The worker that ran step {step_name} was lost. {reason}")


class DBOSMisuseError(_OneMessage, AssertionError):
    """An operation was called where it cannot work; an AssertionError too, as such programs expect."""


class DBOSSerializationError(_OneMessage, TypeError):
    """A value cannot be stored, or a stored value cannot be read back."""


class DBOSSchemaError(_OneMessage):
    """The database's tables are missing, unfinished, or newer than this package understands."""


class DBOSDatabaseUnavailableError(_OneMessage):
    """The database could not be reached for as long as an outside caller is made to wait."""


class DBOSReadOnlyError(_OneMessage):
    """Something was to be written through a client that only reads; nothing has reached the database."""


class DBOSQueryTimeoutError(_OneMessage):
    """A statement took longer than the client allows."""


for _name, _class in list(globals().items()):
    if isinstance(_class, type) and issubclass(_class, (DBOSException, DBOSBaseException)):
        _class.__module__ = "dbos._error"
