"""Exceptions of distill in other processes: pickled, copied, and raised in a pool of workers."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from distill import errors
from distill._native import ManifestError
from distill.audio import load_audio, preprocess_complex_spectrograms
from distill.config import AugmentationConfig, ComplexSpectrogramConfig
from distill.errors import (
    AudioFileError,
    DamagedPackError,
    DistillError,
    NothingUsableError,
    PreprocessingCancelled,
)
from sounds import CHUNK, FEATURE, RATE, noise, write

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]
# Values for the parameters of an exception, by name.
VALUES = {
    "message": "sounds: no such folder",
    "faults": ["hop_length=0 must be at least 1", "n_mels=0 must be at least 1"],
    "tip": "give the folder that holds your recordings",
    "path": Path("sounds/\udcff.wav"),
    "reason": "empty file",
}


def pickled(value: object, protocol: int | None = None):
    """Pickle a value and load it again."""
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own bytes


def example(kind: type[DistillError]) -> DistillError:
    parameters = inspect.signature(kind).parameters.values()
    given = {p.name: VALUES[p.name] for p in parameters if p.name in VALUES or p.default is p.empty}
    return kind(**given)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("has_notes", [False, True])
def test_an_error_is_the_same_after_pickling_and_copying(kind, has_notes):
    error = example(kind)
    if has_notes:
        error.while_doing = "reading"  # what a caller may attach, as add_note does
    copies = [pickled(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (*copies, pickled(copies[-1]), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert other is not error
        assert (other.args, str(other), vars(other)) == (error.args, str(error), vars(error))
        assert (other.tip, other.exit_code) == (error.tip, error.exit_code)


def test_an_exception_of_the_extension_is_the_same_after_pickling():
    other = pickled(ManifestError("its checksum is wrong"))
    assert type(other) is ManifestError
    assert other.args == ("its checksum is wrong",)


def test_callers_that_know_only_the_classes_of_python_catch_them(tmp_path):
    write(tmp_path / "silent.wav", np.zeros(RATE))
    feature = ComplexSpectrogramConfig(**FEATURE)
    with pytest.raises(ValueError, match=r"no file could be used(?s:.*)silent\.wav") as nothing:
        preprocess_complex_spectrograms(None, tmp_path, feature, chunk_samples=CHUNK, sample_rate=RATE)
    assert type(nothing.value) is NothingUsableError
    write(tmp_path / "sound.wav", noise(1, 96_000), 48_000)
    # 2002 rows of 96 kB, above the 100 MB from which it asks.
    many = {"augmentation_config": AugmentationConfig(), "augmentation_expansion": 1_000}
    feature = ComplexSpectrogramConfig()
    with pytest.raises(RuntimeError, match="cancelled before anything was computed") as cancelled:
        preprocess_complex_spectrograms(None, tmp_path, feature, **many, confirm_callback=lambda _: False)
    assert type(cancelled.value) is PreprocessingCancelled


class PathError(DamagedPackError):
    """An exception of a caller, with other parameters than its base."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number}.pack", "odd")
        self.number = number


def test_a_subclass_with_other_parameters_is_the_same_after_pickling():
    error = PathError(3)
    other = pickled(error)
    assert (type(other), vars(other), str(other)) == (PathError, vars(error), str(error))


def test_an_unusable_file_ends_a_pool_with_its_error(tmp_path):
    """multiprocessing waits forever for a result that cannot be unpickled."""
    whole = write(tmp_path / "whole.wav", noise(1, RATE))
    empty = tmp_path / "empty.wav"
    empty.touch()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        waiting = pool.map_async(load_audio, [str(whole), str(empty)])
        with pytest.raises(AudioFileError, match="is empty") as error:
            waiting.get(timeout=120)
        assert pool.apply_async(load_audio, [str(whole)]).get(timeout=120) is not None
    with pytest.raises(AudioFileError) as here:
        load_audio(str(empty))
    assert (vars(error.value), str(error.value)) == (vars(here.value), str(here.value))
