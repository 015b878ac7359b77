"""Fixtures of the tests with several processes."""

from __future__ import annotations

from tests.coroner import coroner

__all__ = ["coroner"]
