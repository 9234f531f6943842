"""Sound from a trained run: generated sounds, and reconstructions of existing ones."""

from __future__ import annotations

from distill._lazy import lazy_names

_PUBLIC = {
    "Generated": "distill.generate.generation",
    "Recipe": "distill.generate.recipe",
    "Reconstructed": "distill.generate.reconstruction",
    "generate": "distill.generate.generation",
    "reconstruct": "distill.generate.reconstruction",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
