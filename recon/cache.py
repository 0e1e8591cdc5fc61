"""A bounded, thread-safe store of what is expensive to make and depends only on its key: plans, whitening."""

from __future__ import annotations

from kernels.plans import Cache

__all__ = ["Cache"]
