"""Fixtures of tests in real kernels: each test has a kernel and a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.driver import Kernel

LOAD = "%load_ext dbos_notebook"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel(tmp_path) as started:
        yield started


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    """A kernel with the extension loaded, and what most cells use imported."""
    kernel.run(LOAD)
    kernel.run(
        "import asyncio, os, threading, time\nfrom pathlib import Path\nfrom dbos import DBOS, Queue, SetWorkflowID"
    )
    return kernel
