"""Pictures of training runs, latent spaces and sounds."""

from __future__ import annotations

import os

# Pictures are written without a backend. A notebook's shell sets one that other processes may not have, and with which
# matplotlib then cannot be imported.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
