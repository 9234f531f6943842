"""A GPU that is not there, for tests of what the host does: launches take CPU tensors, are recorded, and do nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

DEVICE = 77
"""A number that no GPU has, because Triton keeps compiled kernels by device."""


@dataclass
class Launch:
    """A launch as the driver would see it."""

    code: str
    """Name of the machine code: what Triton has specialized it for."""
    grid: tuple[int, int, int]
    stream: int
    arguments: tuple[Any, ...]


@dataclass
class Driver:
    """Takes the place of Triton's driver. Nothing is compiled."""

    arch: int = 90
    stream: int = 0
    launches: list[Launch] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    on_compile: Callable[[], None] = lambda: None
    on_launch: Callable[[], None] = lambda: None

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return DEVICE

    def get_current_stream(self, device: int) -> int:
        assert device == DEVICE
        return self.stream


@contextmanager
def no_gpu() -> Iterator[Driver]:
    """Let Triton launch the fused kernel on a :class:`Driver`."""
    import triton
    from triton.compiler import CompiledKernel

    driver = Driver()

    class Code(CompiledKernel):
        """Compiled code without any: it is what Triton launches, and what it launches with."""

        def __init__(self, name: str) -> None:
            self.module, self.function, self.packed_metadata, self._run = object(), name, (), launch
            self.name, self.src = name, None

        def __del__(self) -> None:
            """Nothing was loaded."""

    def launch(x: int, y: int, z: int, stream: int, code: str, *given: Any) -> None:
        driver.on_launch()
        _, _, _, _, *arguments = given  # metadata and hooks come first
        driver.launches.append(Launch(code, (x, y, z), stream, tuple(arguments)))

    def compiled(kernel: Any, key: str, signature: Any, device: int, *_: Any) -> Code:
        driver.on_compile()
        driver.compiled.append(key)
        kernel.device_caches[device][0][key] = code = Code(key)
        return code

    # The package has a function of the same name.
    kernel = importlib.import_module("distill.kernels.complex_mel").complex_mel_kernel
    patches = [
        mock.patch.object(triton.runtime.driver, "_active", driver),
        mock.patch.object(type(kernel), "_do_compile", compiled),
        mock.patch("distill.features.backends.triton._triton_fault", return_value=None),
    ]
    try:
        for patch in patches:
            patch.start()
        yield driver
    finally:
        for patch in reversed(patches):
            patch.stop()
        kernel.device_caches.pop(DEVICE, None)
