"""The files of a run, changed in thousands of ways: they load, or are refused by an error that names the file."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import random
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from distill.cli.parsing import base_config
from distill.errors import DistillError, RunError
from distill.models.store import load_description, load_model
from distill.runs.axes import read_axes
from distill.runs.folder import RunFolder
from distill.runs.instrument import Instrument
from distill.training import train
from distill.training.state import TrainingState
from instruments import tones, write_axis, write_run

pytestmark = pytest.mark.usefixtures("one_thread")

COUNT = 2_000
MEMORY = 1 << 30
DEEP = 10_000
# Loading a whole run takes longer than reading one of its files.
WHOLE_EVERY = 10

ODD_JSON = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e400", "1e-320", "-0.0", "0", "-1", "1.5", "1e30", "1e300"),
    *("1000000000", str(2**31), str(2**63), str(2**64), "9" * 300, "9" * 5_000, "true", "false", "null", "[]", "{}"),
    *('""', '"4"', '"nan"', '"a\\u0000b"', '"\\ud800"', '"\\u001b[2J"', f'"{"x" * 10_000}"', "[1, 2]", '{"a": 1}'),
    *("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * 900 + "]" * 900),
)
ODD_TOML = (
    *("nan", "inf", "-inf", "1e999", "1e-320", "-0.0", "0", "-1", "1.5", "1e30", "1000000000", "2147483648", "0xff"),
    *(
        "9223372036854775808",
        "9" * 300,
        "9" * 5_000,
        "true",
        "false",
        "[]",
        "{}",
        '""',
        '"4"',
        '"\\u0000"',
        "1979-05-27",
    ),
    *("99:99:99", f'"{"x" * 10_000}"', "[1, 2]", "{a = 1}", "[" * DEEP + "]" * DEEP, "{a = " * 900 + "1" + "}" * 900),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with every key in it."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def mutated_json(text: str, dice: random.Random) -> str:
    """A JSON text with one value replaced, or a key removed, renamed, added or repeated."""
    value = json.loads(text)
    container, key = dice.choice(list(places(value)))
    odd = dice.choice(ODD_JSON)
    kind = dice.choice(("replace", "replace", "replace", "remove", "rename", "add", "repeat", "whole", "quote"))
    if kind == "whole":
        return odd
    if kind == "remove":
        del container[key]
    elif kind == "quote":
        container[key] = str(container[key])
    elif kind in ("rename", "add") and isinstance(container, dict):
        container["new key"] = container.pop(key) if kind == "rename" else "@"
    elif kind == "repeat" and isinstance(container, dict):
        container["@"] = 1
        return json.dumps(value).replace('"@": 1', f"{json.dumps(key)}: {odd}")
    else:
        container[key] = "@"
    return json.dumps(value).replace('"@"', odd)


def mutated_toml(text: str, dice: random.Random) -> str:
    """A TOML text with one line replaced, removed, repeated, or under another key."""
    lines = text.splitlines()
    place = dice.choice([number for number, line in enumerate(lines) if line])
    name, _, value = lines[place].partition(" = ")
    odd = dice.choice(ODD_TOML)
    lines[place] = dice.choice(
        (
            *(f"{name} = {odd}", f"{name} = {odd}", f'{name} = "{value}"', f"new_key = {value}", f"{name}.a = {odd}"),
            *("", f"{lines[place]}\n{lines[place]}", f"[{name}]", f"[[{name}]]", name, f"[{'a.' * 500}a]"),
        )
    )
    return "\n".join(lines)


def mutated_bytes(content: bytes, dice: random.Random) -> bytes:
    """Content with a few bytes changed, inserted or cut off."""
    place = dice.randrange(len(content))
    kind = dice.choice(("flip", "insert", "cut", "zeros", "noise", "double"))
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :]
    if kind == "insert":
        return (
            content[:place] + dice.choice((b"\xff", b"\x00", b"\xc3", b"[", b"{", b'"', b"9" * 400)) + content[place:]
        )
    if kind == "noise":
        return content[:place] + dice.randbytes(8) + content[place + 8 :]
    return {"cut": content[:place], "zeros": content[:place] + bytes(len(content) - place), "double": content * 2}[kind]


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let the process take another GiB of addresses, and no more."""
    taken = int(re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = write_run(tmp_path_factory.mktemp("run"), tones()[:6], latent_dim=3)
    for epoch in (1, 2, 3):
        figures = {
            "train_loss": 0.5,
            "val_loss": 0.25,
            "val_magnitude_r2": 0.5,
            "val_if_r2": None,
            "prior_frechet": 1.0,
        }
        RunFolder(run).append_metrics({"epoch": epoch, **figures})
    write_axis(run, np.array([1.0, 0.0, 0.0]), "pitch")
    return run


@pytest.fixture
def run_dir(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def refusal(load: Callable[[], object]) -> DistillError | None:
    """The error that something is refused with; None if it loads. Every other end is an error of the test."""
    try:
        load()
    except DistillError as error:
        return error
    return None


def outcomes(path: Path, contents: Iterator[bytes], *loads: Callable[[], object]) -> tuple[int, int]:
    """How many contents the first of `loads` accepts and refuses. The others get every tenth."""
    refused = number = 0
    with limited_memory():
        for number, content in enumerate(contents, 1):
            path.write_bytes(content)
            for load in loads if number % WHOLE_EVERY == 0 else loads[:1]:
                if error := refusal(load):
                    assert path.name in str(error), error
                    assert len(str(error)) < 4_000
                    assert str(error).isprintable()
                    assert error.tip
                    refused += load is loads[0]
    return number - refused, refused


def contents_of(path: Path, mutate: Callable[[str, random.Random], str]) -> Iterator[bytes]:
    whole, dice = path.read_bytes(), random.Random(path.name)
    yield from (b"", b"\n", b"\xef\xbb\xbf" + whole, whole.decode().encode("utf-16"))
    for _ in range(COUNT):
        if dice.random() < 0.4:
            yield mutated_bytes(whole, dice)
        else:
            yield mutate(whole.decode(), dice).encode("utf-8", "surrogatepass")


def load_everything(run: Path) -> None:
    Instrument.load(run, "cpu")
    base_config(["--resume", str(run)])


READ = {
    "model.json": load_description,
    "run.json": lambda run: RunFolder(run).dataset(),
    "config.toml": lambda run: RunFolder(run).config(),
    "metrics.jsonl": lambda run: RunFolder(run).metrics(),
}


def mutated_line(text: str, dice: random.Random) -> str:
    """Lines of JSON, one of them mutated."""
    lines = text.splitlines()
    place = dice.randrange(len(lines))
    lines[place] = mutated_json(lines[place], dice)
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", READ)
def test_two_thousand_mutations_of_a_file(run_dir, name):
    path = run_dir / name
    mutate = {"config.toml": mutated_toml, "metrics.jsonl": mutated_line}.get(name, mutated_json)
    loads = [lambda: READ[name](run_dir)] + [lambda: load_everything(run_dir)] * (name != "metrics.jsonl")
    accepted, refused = outcomes(path, contents_of(path, mutate), *loads)
    assert min(accepted, refused) > 20


def test_two_thousand_mutations_of_the_names_of_axes(run_dir):
    path = run_dir / "latent" / "analysis.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    dice = random.Random(0)

    def contents() -> Iterator[bytes]:
        for _ in range(COUNT):
            names = mutated_json(metadata["names"], dice).encode("utf-8", "replace").decode()
            yield save(tensors, metadata | {"names": names})

    accepted, refused = outcomes(path, contents(), lambda: read_axes(run_dir))
    assert min(accepted, refused) > 20


@pytest.mark.parametrize("name", ["model.safetensors", "latent/analysis.safetensors"])
def test_mutations_of_the_header_of_tensors(run_dir, name):
    path = run_dir / name
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, tensors = whole[8 : 8 + size].decode(), whole[8 + size :]
    dice = random.Random(0)

    def contents() -> Iterator[bytes]:
        for _ in range(200):
            changed = mutated_json(header, dice).encode("utf-8", "surrogatepass")
            yield len(changed).to_bytes(8, "little") + changed + tensors
            yield mutated_bytes(whole[: 8 + size], dice) + tensors

    load = (lambda: read_axes(run_dir)) if "latent" in name else (lambda: load_model(run_dir))
    _, refused = outcomes(path, contents(), load)
    assert refused > 100


def test_a_file_that_is_too_large_to_be_a_configuration(run_dir):
    (run_dir / "config.toml").write_text(f"[{'a.' * 1_000_000}a]")
    with pytest.raises(DistillError, match=r"config\.toml: damaged: 2000003 bytes, where at most 100000 are read"):
        RunFolder(run_dir).config()


@pytest.mark.parametrize("name", ["model.json", "run.json", "config.toml", "metrics.jsonl", "model.safetensors"])
def test_a_folder_or_a_pipe_instead_of_a_file(run_dir, name):
    load = RunFolder(run_dir).metrics if name == "metrics.jsonl" else lambda: load_everything(run_dir)
    (run_dir / name).unlink()
    (run_dir / name).mkdir()
    with pytest.raises(DistillError, match=re.escape(name)):
        load()
    (run_dir / name).rmdir()
    os.mkfifo(run_dir / name)
    with pytest.raises(DistillError, match=re.escape(name)):
        load()


ODD = (None, True, -1, 1.5, math.nan, math.inf, 2**80, "4", [], {}, {"a": 1}, torch.zeros(3), torch.zeros(2, 3, 4))


@pytest.fixture
def state(run_dir) -> dict[str, Any]:
    """A checkpoint after a step."""
    model = load_model(run_dir)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, *model.row_shape))[0].sum().backward()
    optimizer.step()
    stats = load_description(run_dir)["statistics"]
    begun = TrainingState(model, optimizer, torch.zeros(model.row_shape[:2]), stats, "key", step=1)
    return begun.checkpoint()


def test_mutations_of_a_checkpoint(run_dir, state, caplog):
    run = RunFolder(run_dir)
    run.save_state(state, keep=1, is_best=False)
    assert run.load_state().keys() == state.keys() | {"version"}
    path = run_dir / "checkpoints" / "step-000000001.pt"
    whole, dice = path.read_bytes(), random.Random(0)

    def contents() -> Iterator[bytes]:
        for key in (*state, "version"):
            for odd in ODD:
                content = io.BytesIO()
                torch.save({"version": 2, **state, key: odd}, content)
                yield content.getvalue()
            torch.save({name: value for name, value in state.items() if name != key}, content := io.BytesIO())
            yield content.getvalue()
        for _ in range(100):
            yield mutated_bytes(whole, dice)

    model = load_model(run_dir)
    optimizer = torch.optim.AdamW(model.parameters())
    refused = 0
    for content in contents():
        path.write_bytes(content)
        caplog.clear()
        if error := refusal(run.load_state):
            assert str(run_dir) in str(error)
            assert str(path) in caplog.text
            refused += 1
        else:
            # What `train` turns into an error that names the run.
            with suppress(RuntimeError, ValueError, LookupError, TypeError, AttributeError):
                TrainingState.restore(run.load_state(), model, optimizer)
    assert refused > 100


@pytest.mark.parametrize("key", ["model", "band_means"])
def test_a_checkpoint_that_does_not_fit_is_refused_on_resume(run_dir, state, sounds, key):
    RunFolder(run_dir).save_state(state | {key: {} if key == "model" else torch.zeros(2, 3)}, keep=1, is_best=False)
    with pytest.raises(RunError, match="its checkpoint does not fit its configuration") as error:
        train(next(sounds.iterdir()), run_dir, resume=True, cache_dir=run_dir / "cache")
    assert error.value.tip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", {"kl_weight": 0.1}),
        ("objective", {"batch_size": "a", "free_bits": 0.0, "if_weight": 1.0, "kl_weight": 0.0}),
        ("device_rng", {"cpu": 3}),
        ("val_limit", -5),
        ("best_epoch", "x"),
        ("sums", {"kl": 1.0}),
        ("epoch", 2**62),
    ],
)
def test_an_odd_value_in_a_checkpoint_is_named(run_dir, state, caplog, key, value):
    run = RunFolder(run_dir)
    run.save_state(state | {key: value}, keep=1, is_best=False)
    with pytest.raises(RunError, match="none of its checkpoints can be read"):
        run.load_state()
    assert f"damaged: {key}" in caplog.text


@pytest.mark.parametrize("moment", [torch.zeros(3), None])
def test_moments_that_do_not_fit_the_weights_are_refused_on_resume(run_dir, state, sounds, moment):
    odd = copy.deepcopy(state)
    odd["optimizer"]["state"][0]["exp_avg"] = moment
    RunFolder(run_dir).save_state(odd, keep=1, is_best=False)
    with pytest.raises(RunError, match="its checkpoint does not fit its configuration"):
        train(next(sounds.iterdir()), run_dir, resume=True, cache_dir=run_dir / "cache")


@pytest.mark.timeout(30)
def test_a_fifo_in_place_of_a_checkpoint_does_not_block(run_dir, state, caplog):
    run = RunFolder(run_dir)
    run.save_state(state, keep=2, is_best=False)
    os.mkfifo(run_dir / "checkpoints" / "step-000000009.pt")
    assert run.load_state()["step"] == 1
    assert "step-000000009.pt: cannot be read" in caplog.text


def test_weights_that_give_no_finite_features_are_refused(run_dir, run, tmp_path):
    path = run_dir / "model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(path).items()}, path)
    code, _, err = run("generate", run_dir, "--out", tmp_path / "out", "--count", 1, "--seed", 1)
    assert code == RunError.exit_code
    assert "not finite" in err
