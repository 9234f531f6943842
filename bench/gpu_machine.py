"""What `bench/gpu.py` notes about the machine: versions, clocks, and the code that it ran."""

from __future__ import annotations

import datetime
import importlib
import platform
import shutil
import subprocess
from typing import Any

import numpy as np
import torch
import triton


def versions(device: torch.device) -> dict[str, Any]:
    """Return date, name of the GPU, and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "cuda": torch.version.cuda or torch.version.hip,
        },
    }


def compiled_kernels(device: torch.device) -> list[dict[str, int]]:
    """Return the resources of the kernels that were compiled so far."""
    if device.type != "cuda":
        return []
    kernel = importlib.import_module("distill.kernels.complex_mel").complex_mel_kernel
    return [
        {
            "registers": binary.n_regs,
            "spills": binary.n_spills,
            "shared_bytes": binary.metadata.shared,
            "num_warps": binary.metadata.num_warps,
        }
        for binary in kernel.device_caches[device.index][0].values()
    ]


def nvidia_smi(device: torch.device) -> dict[str, str]:
    """Return driver, clocks and power limit from nvidia-smi; empty if it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if device.type != "cuda" or program is None:
        return {}
    names = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit")
    uuid = torch.cuda.get_device_properties(device).uuid
    command = [program, f"--id=GPU-{uuid}", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else {}
