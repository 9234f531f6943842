"""The cache: packs of feature rows, and the manifest that lists them with their source files."""

from distill.cache.reader import CacheReader
from distill.cache.slots import load_cache_manifest

__all__ = ["CacheReader", "load_cache_manifest"]
