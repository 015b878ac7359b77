"""The functions and triggers of the classic layout on Postgres, and the trigger that stands in for a foreign key.

Other programs call `enqueue_workflow` and `send_message` by their signatures, listen on the two channels, and
alter these functions when they migrate the database to a later layout; so names, argument types and payloads
are shared, while the bodies are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbos._kernel.schema import Tables

_POSTGRES = """
CREATE FUNCTION {s}.notifications_function() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM pg_notify('dbos_notifications_channel', NEW.destination_uuid || '::' || NEW.topic);
  RETURN NEW;
END $body$;

CREATE TRIGGER dbos_notifications_trigger AFTER INSERT ON {s}.notifications
  FOR EACH ROW EXECUTE FUNCTION {s}.notifications_function();

CREATE FUNCTION {s}.workflow_events_function() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM pg_notify('dbos_workflow_events_channel', NEW.workflow_uuid || '::' || NEW.key);
  RETURN NEW;
END $body$;

CREATE TRIGGER dbos_workflow_events_trigger AFTER INSERT ON {s}.workflow_events
  FOR EACH ROW EXECUTE FUNCTION {s}.workflow_events_function();

CREATE FUNCTION {s}.forget_steps() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  DELETE FROM {s}.operation_outputs WHERE workflow_uuid = OLD.workflow_uuid;
  RETURN NULL;
END $body$;

CREATE TRIGGER forget_steps AFTER DELETE ON {s}.workflow_status
  FOR EACH ROW EXECUTE FUNCTION {s}.forget_steps();

CREATE FUNCTION {s}.enqueue_workflow(
  workflow_name text, queue_name text, positional_args json[] DEFAULT ARRAY[]::json[], named_args json DEFAULT '{{}}'::json,
  class_name text DEFAULT NULL, config_name text DEFAULT NULL, workflow_id text DEFAULT NULL,
  app_version text DEFAULT NULL, timeout_ms bigint DEFAULT NULL, deadline_epoch_ms bigint DEFAULT NULL,
  deduplication_id text DEFAULT NULL, priority integer DEFAULT NULL, queue_partition_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
  new_id text := COALESCE(workflow_id, gen_random_uuid()::text);
  moment bigint := (EXTRACT(epoch FROM clock_timestamp()) * 1000)::bigint;
  taken {s}.workflow_status%ROWTYPE;
BEGIN
  IF COALESCE(enqueue_workflow.workflow_name, '') = '' THEN RAISE EXCEPTION 'workflow_name must not be empty'; END IF;
  IF COALESCE(enqueue_workflow.queue_name, '') = '' THEN RAISE EXCEPTION 'queue_name must not be empty'; END IF;
  IF enqueue_workflow.workflow_id = '' THEN RAISE EXCEPTION 'workflow_id must not be empty'; END IF;
  IF json_typeof(COALESCE(enqueue_workflow.named_args, '{{}}'::json)) <> 'object' THEN
    RAISE EXCEPTION 'named_args must be a JSON object';
  END IF;
  INSERT INTO {s}.workflow_status AS w (
    workflow_uuid, status, name, class_name, config_name, queue_name, application_version, inputs, serialization,
    workflow_timeout_ms, workflow_deadline_epoch_ms, deduplication_id, priority, queue_partition_key,
    recovery_attempts, created_at, updated_at
  ) VALUES (
    new_id, 'ENQUEUED', enqueue_workflow.workflow_name, enqueue_workflow.class_name, enqueue_workflow.config_name,
    enqueue_workflow.queue_name, enqueue_workflow.app_version,
    json_build_object('positionalArgs', COALESCE(enqueue_workflow.positional_args, ARRAY[]::json[]),
                      'namedArgs', COALESCE(enqueue_workflow.named_args, '{{}}'::json))::text,
    'portable_json', enqueue_workflow.timeout_ms, enqueue_workflow.deadline_epoch_ms,
    enqueue_workflow.deduplication_id, COALESCE(enqueue_workflow.priority, 0), enqueue_workflow.queue_partition_key,
    0, moment, moment
  ) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    SELECT * INTO taken FROM {s}.workflow_status w WHERE w.workflow_uuid = new_id;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'Workflow % was deduplicated due to an existing workflow in queue % with deduplication ID %',
        new_id, enqueue_workflow.queue_name, enqueue_workflow.deduplication_id USING ERRCODE = 'unique_violation';
    END IF;
    IF taken.name IS DISTINCT FROM enqueue_workflow.workflow_name
      OR COALESCE(taken.class_name, '') <> COALESCE(enqueue_workflow.class_name, '')
      OR COALESCE(taken.config_name, '') <> COALESCE(enqueue_workflow.config_name, '') THEN
      RAISE EXCEPTION 'Workflow % already exists with a different function, class or instance', new_id;
    END IF;
  END IF;
  RETURN new_id;
END $body$;

CREATE FUNCTION {s}.send_message(
  destination_id text, message json, topic text DEFAULT NULL, message_id text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
  INSERT INTO {s}.notifications (message_uuid, destination_uuid, topic, message, serialization)
  VALUES (
    COALESCE(send_message.message_id, gen_random_uuid()::text), send_message.destination_id,
    COALESCE(send_message.topic, '__null__topic__'), send_message.message::text, 'portable_json'
  ) ON CONFLICT (message_uuid) DO NOTHING;
EXCEPTION WHEN foreign_key_violation THEN
  RAISE EXCEPTION 'Non-existent `send` destination workflow ID: %', send_message.destination_id
    USING ERRCODE = 'foreign_key_violation';
END $body$
"""


def definitions(tables: Tables) -> list[str]:
    """What to say after the tables are made."""
    if not tables.dialect.has_schemas:
        return []
    quoted = tables.dialect.named.identifier_preparer.quote(tables.schema)
    return [part for part in _POSTGRES.format(s=quoted).split("\n\n") if part.strip()]
