"""Sound from a trained run: generated sounds, and reconstructions of existing ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill._lazy import lazy_names

_PUBLIC = {
    "Generated": "distill.generate.generation",
    "Recipe": "distill.generate.recipe",
    "Reconstructed": "distill.generate.reconstruction",
    "generate": "distill.generate.generation",
    "reconstruct": "distill.generate.reconstruction",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from distill.generate.generation import Generated as Generated
    from distill.generate.generation import generate as generate
    from distill.generate.recipe import Recipe as Recipe
    from distill.generate.reconstruction import Reconstructed as Reconstructed
    from distill.generate.reconstruction import reconstruct as reconstruct
else:
    __getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
