"""The cache: packs of features, the manifest that names them, and their statistics."""

from distill.cache.manifest import load_cache_manifest
from distill.cache.pack import PackReader, PackWriter
from distill.cache.reader import CacheReader

__all__ = ["CacheReader", "PackReader", "PackWriter", "load_cache_manifest"]
