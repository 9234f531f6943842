"""The inverse on a CPU, in Rust; it computes the same as the reference in torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from distill.features.backends.rust import native
from distill.features.inversion.bin_power import AtomTables, Bags, atom_tables
from distill.features.mel import MelSpec, mel_bands


def invert(features: torch.Tensor, spec: MelSpec, n_iter: int, samples: int) -> torch.Tensor:
    """Compute waveforms (B, samples) of valid features, on as many threads as torch may use.

    Each thread takes whole clips; the result does not depend on their number.
    """
    features = features.detach().resolve_neg().float().contiguous()
    out = torch.empty((len(features), samples), dtype=torch.float32)
    _kernel(spec).compute(features.numpy(), out.numpy(), n_iter, torch.get_num_threads())
    return out


@lru_cache(maxsize=32)
def _kernel(spec: MelSpec) -> Any:
    bands, cpu = mel_bands(spec), torch.device("cpu")
    plain = atom_tables(spec._replace(if_masking_threshold=None), cpu)
    tables = atom_tables(spec, cpu) if spec.channels == 2 else None
    return native().MelInverse(
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        bins=_matrices(plain),
        atoms=_matrices(tables) if tables else None,
        lobes=_arrays(tables.lobes) if tables and tables.lobes else None,
        centre=bands.centre.astype(np.float32),
        half_support=bands.half_support.astype(np.float32),
    )


def _matrices(tables: AtomTables) -> tuple[tuple[np.ndarray, ...], ...]:
    return _arrays(tables.to_targets), _arrays(tables.from_targets), _arrays(tables.spread)


def _arrays(bags: Bags) -> tuple[np.ndarray, ...]:
    return tuple(values.numpy() for values in bags)
