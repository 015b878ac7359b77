"""Streams of workflows: values in order under a key, written as they come and read as they come, by anybody.

A value has an offset, 0, 1, 2 and so on. `writing.py` gives it out, `reading.py` follows it.
"""

from dbos._features.streams.reading import Reading, look_for_values, read_stream_offset, values, values_async
from dbos._features.streams.writing import close_stream, write_stream

__all__ = [
    "Reading",
    "close_stream",
    "look_for_values",
    "read_stream_offset",
    "values",
    "values_async",
    "write_stream",
]
