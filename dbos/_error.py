"""The path under which stored pickles name the errors; they live in `dbos.error`."""

from dbos.error import *  # noqa: F403 - every class, under its own name
