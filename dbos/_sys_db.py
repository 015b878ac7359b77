"""The path under which stored pickles name `WorkflowStatus`; it lives in `dbos._kernel.model`."""

from dbos._kernel.model import WorkflowStatus

__all__ = ["WorkflowStatus"]
