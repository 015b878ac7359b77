"""Any order of acts on statuses: what the runtime makes of it is what the reference says, on both databases.

More and other examples than the usual ones: `MODEL_EXAMPLES=1000 pytest tests/model`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import App
from tests.model.machine import Statuses, walk
from tests.model.programs import Program, Turnstile


@pytest.mark.timeout(900)  # for the minutes in which a failure is made small
def test_any_order_of_acts(app: App, clear: Callable[[], None]) -> None:
    program = Program(Turnstile())
    walk(lambda: Statuses(app, clear, program))
