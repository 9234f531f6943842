"""README, site and docstrings: their examples run, every public name is explained, and what they mention exists."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from numpydoc.validate import validate

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = [
    *("distill", "distill.audio", "distill.training", "distill.models", "distill.generate", "distill.latent"),
    *("distill.runs", "distill.cache", "distill.errors"),
]
# Equal results, not equal bytes: shapes depend on the sounds, and long results are folded.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_names() -> dict[str, object]:
    """Return what users import, by the first path that it has."""
    found: dict[int, tuple[str, object]] = {}
    for path in reversed(PUBLIC):
        module = importlib.import_module(path)
        names = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == path
        ]
        for name in names:
            value = getattr(module, name)
            if callable(value):
                found[id(value)] = f"{path}.{name}", value
    return dict(found.values())


NAMES = public_names()


def blocks(page: Path) -> str:
    """Return the Python examples of a page as one program, with its lines where the page has them."""
    lines = [""] * len(page.read_text().splitlines())
    for found in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        first = page.read_text()[: found.start(1)].count("\n")
        code = found[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines).rstrip()


def run_blocks(page: Path) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(blocks(page), page, "exec"), names)  # noqa: S102 - from this repository
    return names


@pytest.fixture(scope="module")
def examples(sounds, tmp_path_factory, one_thread):
    """A folder with recordings and the run that README's example trains, and the names of that example."""
    folder = tmp_path_factory.mktemp("examples")
    for name, sound in {
        "bell": "metal/bell02",
        "pad": "pads/pad00",
        "pluck": "strings/pluck00",
        "drums/kick": "drums/kick00",
        "drums/snare": "drums/snare01",
    }.items():
        (folder / "recordings" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sounds / f"{sound}.wav", folder / "recordings" / f"{name}.wav")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = run_blocks(README)
    return folder, names


@pytest.fixture
def workplace(examples, monkeypatch) -> Path:
    """The working directory of an example: a folder with `recordings` and the run `runs/first`."""
    monkeypatch.chdir(examples[0])
    # The command `distill` is installed beside the Python that runs the tests.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return examples[0]


def test_the_example_of_the_readme_gives_what_it_says(examples):
    _, names = examples
    assert names["features"].shape[:3] == (1, 2, 128)
    assert names["again"].shape == (1, 2, 128, 94)
    magnitude = names["rows"][0][0]
    error = (names["again"][0, 0] - magnitude).square().mean()
    assert error < magnitude.var()


def packages(page: Path) -> set[str]:
    """Return the packages that the examples of a page import, besides distill."""
    found = re.findall(r"^(?:from|import) (\w+)", blocks(page), re.MULTILINE)
    return set(found) - sys.stdlib_module_names - {"distill"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=pytest.mark.needs(*sorted(packages(page))))
        for page in PAGES
        if page != README and blocks(page)
    ],
)
# webdataset leaves its file open.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_the_examples_of_a_page_run(page, workplace):
    run_blocks(page)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("distill.errors.")])
def test_a_public_name_has_an_example_that_is_right(name, workplace):
    # Without names of the module: an example imports what it needs.
    found = doctest.DocTestFinder().find(NAMES[name], name, module=False, globs={})
    assert any(test.examples for test in found), f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for test in found:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


# Of numpydoc's checks those of content: a parameter or the result is not described, or something that is not there is.
FAULTS = {"GL08", "SS01", "PR01", "PR02", "PR03", "PR07", "RT01"}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_described_with_all_of_its_parameters(name):
    value = NAMES[name]
    is_record = dataclasses.is_dataclass(value) or hasattr(value, "_fields")
    fields = inspect.signature(value).parameters if is_record else ()
    # A class that adds no parameters refers to the one that it is derived from.
    adds_parameters = not inspect.isclass(value) or "__init__" in vars(value)
    faults = dict(validate(name)["errors"])
    if not is_record and adds_parameters:
        assert not faults.keys() & FAULTS, faults
    assert not faults.keys() & {"GL08", "SS01"}, faults
    for field in fields:
        documented = [kind for kind in value.__mro__ if field in getattr(kind, "__annotations__", ())]
        source, text = inspect.getsource(documented[0]), inspect.getdoc(documented[0])
        has_own = re.search(rf'^    {field}: .*\n    """', source, re.MULTILINE)
        assert has_own or re.search(rf"^(.*, )?{field}\b.*( : |$)", text, re.MULTILINE), field


def test_every_public_name_is_in_the_reference():
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.rst"))
    named = re.findall(r"^\.\. auto(?:class|function|exception):: (\S+)$", reference, re.MULTILINE)
    values = {id(getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])) for path in named}
    assert ".. automodule:: distill.errors" in reference
    of_errors = {id(value) for value in vars(importlib.import_module("distill.errors")).values()}
    assert [name for name, value in NAMES.items() if id(value) not in values | of_errors] == []


def mentioned(pattern: str) -> list[str]:
    return sorted({found for page in PAGES for found in re.findall(pattern, page.read_text())})


@pytest.mark.parametrize("command", mentioned(r"(?:^|`|\$ )distill ([a-z]+)\b"))
def test_every_command_that_is_mentioned_exists(command):
    from distill.cli.main import COMMANDS

    assert command in COMMANDS


def test_every_module_that_is_mentioned_exists():
    for path in mentioned(r"`(distill(?:\.[a-z_]+)+)`"):
        parent, _, name = path.rpartition(".")
        found = importlib.util.find_spec(path) if importlib.util.find_spec(parent).submodule_search_locations else None
        assert found or hasattr(importlib.import_module(parent), name), path


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem
)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
