"""What can compute features, and what is requested. Imports no torch."""

from __future__ import annotations

import os
from typing import Literal, cast, get_args

from distill.errors import ConfigError

Backend = Literal["auto", "fused", "rust", "reference"]
"""What can be requested: the Triton kernel, the Rust kernel, the reference, or the fastest of them."""
Computed = Literal["fused", "rust", "reference"]
"""What can have computed features, as a cache records it."""
BACKEND_VARIABLE = "DISTILL_BACKEND"
"""Environment variable that replaces "auto"."""


def resolve_backend(backend: Backend) -> Backend:
    """Return `backend`, or the value of DISTILL_BACKEND if `backend` is "auto".

    Parameters
    ----------
    backend : {"auto", "fused", "rust", "reference"}
        The requested backend.

    Raises
    ------
    ConfigError
        If `backend` or DISTILL_BACKEND is none of these.
    """
    choices = ", ".join(get_args(Backend))
    if backend not in get_args(Backend):
        raise ConfigError([f"backend={backend!r} must be one of {choices}"])
    # An empty variable counts as not set.
    from_environment = os.environ.get(BACKEND_VARIABLE) or "auto"
    if from_environment not in get_args(Backend):
        raise ConfigError([f"environment variable {BACKEND_VARIABLE}={from_environment!r} must be one of {choices}"])
    return cast("Backend", from_environment) if backend == "auto" else backend
