"""The table of commands: its entries, what a command imports, and Ctrl-C during an import."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import get_type_hints

import pytest

from distill.cli.main import COMMANDS, load
from sounds import write_dataset

SLOW = {"torch", "tyro", "rich", "matplotlib", "numpy"}


def imported(*argv) -> set[str]:
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
    status, names = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
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


@pytest.mark.parametrize("name", ["status", "clean", "verify"])
def test_commands_that_compute_no_features_import_no_torch(name, run, tmp_path):
    write_dataset(tmp_path, 1)
    if name != "status":
        assert run("preprocess", tmp_path, "--chunk-samples", 8_000, "--augmentation-expansion", 0)[0] == 0
    assert imported(name, tmp_path) <= {"tyro", "rich", "numpy"}


@pytest.mark.parametrize("package", ["tyro", "rich", "torch"])
@pytest.mark.parametrize("module", ["distill.cli.main", "distill.train"])
def test_ctrl_c_during_an_import_ends_the_command_without_a_traceback(module, package, tmp_path):
    code = f"""
import signal, sys
from {module} import main

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.exit(main({["train"] if module == "distill.cli.main" else []} + [{str(tmp_path)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; finished work is kept\n"
