"""The cache: packs of feature rows, and the manifest that lists them with their source files."""

from distill.cache.manifest import load_cache_manifest
from distill.cache.pack import PackWriter
from distill.cache.pack_reader import PackReader
from distill.cache.reader import CacheReader

__all__ = ["CacheReader", "PackReader", "PackWriter", "load_cache_manifest"]
