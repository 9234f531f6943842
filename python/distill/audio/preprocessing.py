"""Public import path of preprocessing; the code is in :mod:`distill.preprocess` and :mod:`distill.cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "load_cache_manifest": "distill.cache.slots",
    "preprocess_complex_spectrograms": "distill.preprocess.spectrograms",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.cache.slots import load_cache_manifest as load_cache_manifest
    from distill.preprocess.spectrograms import preprocess_complex_spectrograms as preprocess_complex_spectrograms
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
