"""`View`: something to show, as HTML and as text; `Shown`: what has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class View:
    """What a command returns to be shown. It is finished: showing it asks nothing and changes nothing."""

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return self.bundle()

    def bundle(self) -> dict[str, str]:
        """The forms of it by their mime types; the HTML is plain text to whoever collects it."""
        return {"text/plain": self.text, "text/html": str(self.html)}


class Shown(ABC):
    """What is shown by its `view`, and holds more than that: frames, values, what can be done next."""

    __slots__ = ()

    @property
    @abstractmethod
    def view(self) -> View:
        """What is shown of it."""

    def __repr__(self) -> str:
        return self.view.text

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return self.view.bundle()
