"""Where frames came from: each carries a word in its `attrs`, and here is the source that the word stands for.

A word and not the source itself: pandas copies `attrs` with every operation, and writes them into files.
"""

from __future__ import annotations

import uuid
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.source import Source

ORIGIN = "dbos_source"

_sources: weakref.WeakValueDictionary[str, Source] = weakref.WeakValueDictionary()


def word_for(source: Source) -> str:
    """A word that stands for this source as long as it lives."""
    word = uuid.uuid4().hex
    _sources[word] = source
    return word


def origin_of(frame: pd.DataFrame) -> Source | None:
    """The source that a frame came from, if it is known and still there."""
    word = frame.attrs.get(ORIGIN)
    return _sources.get(word) if isinstance(word, str) else None
