"""The cache: packs of feature rows, and the manifest that lists them with their source files."""

from distill.cache.pack import PackWriter
from distill.cache.pack_reader import PackReader
from distill.cache.reader import CacheReader
from distill.cache.slots import load_cache_manifest

__all__ = ["CacheReader", "PackReader", "PackWriter", "load_cache_manifest"]
