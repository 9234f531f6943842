"""The table of commands: its entries, what a command imports, and Ctrl-C during an import."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import get_type_hints

import pytest

from distill.cli.main import COMMANDS, load, main
from instruments import tones, write_run
from sounds import SMALL, age, write_dataset

SLOW = {"torch", "tyro", "rich", "numpy", "soundfile", "soxr", "av", "safetensors"}
# What no command needs that does not train or draw.
SLOW |= {"matplotlib", "tensorboard", "pandas", "scipy", "ray", "distill.training", "distill.plots"}
READS = {"numpy", "soundfile", "soxr", "av"}
"""What reads audio."""


def imported(*argv, status: int = 0) -> set[str]:
    """Run a command in a new process, and return the slow packages that it imported."""
    code = f"""
import json, sys
from distill.cli.main import main
try:
    status = main({[str(argument) for argument in argv]})
except SystemExit as exit:
    status = exit.code
print()
print(json.dumps([status, sorted({SLOW} & sys.modules.keys())]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    ended, names = json.loads(done.stdout.splitlines()[-1])
    assert ended == status, done.stderr
    return set(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_entry_names_a_runner_and_the_arguments_that_it_takes(name):
    command = COMMANDS[name]
    kind, runner = load(command.arguments), load(command.runner)
    assert dataclasses.is_dataclass(kind)
    assert kind.__doc__
    (parameter,) = inspect.signature(runner).parameters
    assert get_type_hints(runner) == {parameter: kind, "return": int}


def test_usage_lists_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name, command in COMMANDS.items():
        assert f"\n  {name} {command.operands} " in out
        assert f" {command.help}\n" in out


@pytest.mark.parametrize("argv", [["--help"], ["--version"]], ids=lambda argv: argv[0])
def test_usage_and_version_import_nothing_slow(argv):
    assert imported(*argv) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_neither_torch_nor_numpy(name):
    assert imported(name, "--help") <= {"tyro", "rich"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset that is preprocessed, whose stamps are old enough to be trusted."""
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root, 2)
    age(root)
    assert main(["preprocess", str(root), *map(str, SMALL)]) == 0
    return root


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (("preprocess", "{dataset}", *SMALL), set()),
        (("preprocess", "{dataset}", *SMALL, "--json"), set()),
        (("status", "{dataset}"), {"av"}),
        (("clean", "{dataset}"), {"numpy"}),
        (("clean", "{dataset}", "--older-than", "1d"), {"numpy"}),
        (("verify", "{dataset}"), READS),
        (("export", "{dataset}", "{new}", "--format", "npy"), {"numpy", "safetensors"}),
        (("generate", "{run}", "--out", "{new}"), READS | {"torch", "safetensors"}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_command_imports_only_what_it_runs(dataset, tmp_path, request, argv, allowed):
    where = {"dataset": dataset, "new": tmp_path / "new"}
    if "{run}" in argv:
        where["run"] = write_run(tmp_path / "run", tones()[:6], latent_dim=3)
    assert imported(*(str(word).format_map(where) for word in argv)) <= allowed


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "{missing}"),
        ("train", "--resume", "{missing}"),
        ("preprocess", "{missing}"),
        ("status", "{missing}"),
        ("verify", "{missing}"),
        ("clean", "{missing}"),
        ("export", "{missing}", "{missing}"),
        ("analyze", "{missing}"),
        ("analyze", "{dataset}"),
        ("play", "{missing}"),
        ("play", "{dataset}"),
        ("generate", "{missing}", "--out", "{missing}"),
        ("generate", "{dataset}", "--out", "{missing}"),
        ("reconstruct", "{missing}", "a.wav", "--out", "{missing}"),
    ],
    ids=" ".join,
)
def test_a_path_that_cannot_be_used_is_reported_without_torch(dataset, tmp_path, argv):
    where = {"dataset": dataset, "missing": tmp_path / "missing"}
    assert "torch" not in imported(*(word.format_map(where) for word in argv), status=2)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("package", "option", "outcome"),
    [("tyro", "--help", "finished work is kept"), ("torch", "--no-analyze", "nothing was begun")],
)
@pytest.mark.parametrize("module", ["distill.cli.main", "distill.train"])
def test_ctrl_c_during_an_import_ends_the_command_without_a_traceback(module, package, option, outcome, tmp_path):
    code = f"""
import signal, sys
from {module} import main

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.exit(main({["train"] if module == "distill.cli.main" else []} + [{str(tmp_path)!r}, {option!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"interrupted; {outcome}\n"
