"""The path under which stored pickles name `PortableWorkflowError`; it lives in `dbos._kernel.codec`."""

from dbos._kernel.codec import PortableWorkflowError, Serializer, WorkflowSerializationFormat

__all__ = ["PortableWorkflowError", "Serializer", "WorkflowSerializationFormat"]
