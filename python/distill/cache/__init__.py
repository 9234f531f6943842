"""The cache: packs of feature rows, and the manifest that lists them with their source files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "CacheReader": "distill.cache.reader",
    "load_cache_manifest": "distill.cache.slots",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.cache.reader import CacheReader as CacheReader
    from distill.cache.slots import load_cache_manifest as load_cache_manifest
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
