"""A kernel that a person would use."""

from tests.kernels.conftest import kernel

__all__ = ["kernel"]
