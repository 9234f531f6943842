"""Whatever a file of a run holds, what is shown of the run is an answer that is JSON, or one of our errors."""

from __future__ import annotations

import json
import random

import pytest

from distill.errors import DistillError
from distill.play.library import Library
from distill.play.shelf import Shelf
from distill.play.view import dataset_file, describe, sound_map, sound_names
from distill.play.watch import training

VALUES = (None, True, -1, 0, 1e300, 2**62, "x", "\ud800", [], {}, [[]], {"a": 1})


def mutated(value, dice: random.Random, depth: int = 0):
    """Change, repeat or remove one value in a JSON value."""
    if isinstance(value, (dict, list)) and value and (depth == 0 or dice.random() < 0.75):
        key = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
        act = dice.random()
        if act < 0.2:
            del value[key]
        elif act < 0.3 and isinstance(value, list):
            value.insert(key, value[key])
        else:
            value[key] = mutated(value[key], dice, depth + 1)
        return value
    return dice.choice(VALUES)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["latent/analysis.json", "run.json", "metrics.jsonl", "shelf.json"])
def test_mutations_of_a_file(copied, name):
    Shelf(copied).add("Bell", {"seed": 7, "axes": {"1": 0.5}}, "distill generate")
    path, dice = copied / name, random.Random(name)
    sound = sound_names(copied)["dataset"][0]
    whole = path.read_text().splitlines()[0] if name == "metrics.jsonl" else path.read_text()
    looks = (
        *(describe, sound_map, sound_names, lambda run: training(run, 0), lambda run: Library(run.parent).runs()),
        *(lambda run: str(dataset_file(run, sound)), lambda run: Shelf(run).sounds()),
    )
    answers = refusals = 0
    for _ in range(100):
        path.write_text(json.dumps(mutated(json.loads(whole), dice)) + "\n")
        before = path.read_bytes()
        for look in looks:
            try:
                json.dumps(look(copied), allow_nan=False)
                answers += 1
            except DistillError:
                refusals += 1
        assert path.read_bytes() == before
    assert answers > 100
    assert refusals > 5


def test_a_folder_in_place_of_a_file_is_no_surprise(copied):
    for name in ("latent/analysis.json", "latent/analysis.safetensors", "shelf.json", "metrics.jsonl"):
        (copied / name).unlink(missing_ok=True)
        (copied / name).mkdir()
    assert describe(copied)["analysis"]["state"] == "missing"
    for look in (lambda: Shelf(copied).sounds(), lambda: training(copied, 0), lambda: sound_map(copied)):
        with pytest.raises(DistillError):
            look()
    (run,) = Library(copied.parent).runs()
    assert str(copied / "metrics.jsonl") in run["error"]
