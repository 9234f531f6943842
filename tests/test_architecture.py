"""Who imports whom: a module imports what stands below its layer, and siblings in its own package."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distill

ROOT = Path(distill.__file__).parent
RUST = Path(__file__).parent.parent / "rust"

# From the top down. Names on one line do not import each other; the modules of a package may.
LAYERS = [
    "train demo",
    "cli demo_sounds",
    "pipeline demo_m4a play",
    "training latent generate",
    "preprocess runs",
    "cache",
    "audio features models index plots",
    "kernels",
    "config documents extensions",
    "availability device front_ends storage text faults",
    "errors types _lazy _native",
]
# Names that users import from one module and that another module defines. They are looked up when they are used, so
# that they may stand above the module that offers them.
FACES = ["distill", "audio", "training"]
PUBLIC_PATHS = {
    "audio.preprocessing": ["preprocess_complex_spectrograms", "load_cache_manifest"],
    "audio.spectrogram": ["AudioSpectrogram", "ComplexSpectrogram", "ComplexSpectrogramConfig", "SpectrogramConfig"],
    "training.dataset": [
        "AudioTrainingDataset",
        "CachedSpectrogramDataset",
        "create_complex_data_loaders",
        "create_data_loaders",
    ],
    "training.loop": ["train", "train_epoch", "validate_epoch"],
    "training.config": ["TrainingConfig", "ComplexSpectrogramConfig"],
}
RANK = {name: rank for rank, line in enumerate(reversed(LAYERS)) for name in line.split()}
# The package itself: its version, which everything may show.
RANK["distill"] = -1


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "distill"


def exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name in ("distill", "_native") or path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(path: Path) -> set[str]:
    """Modules of distill that a file imports anywhere in it, for types alone, too, unless it only offers names."""
    package = ["distill", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    tree = ast.parse(path.read_text())
    if "lazy_names(" in path.read_text():
        tree.body = [node for node in tree.body if not is_for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {module_of(name) for name in found if name.split(".")[0] == "distill"}


def module_of(name: str) -> str:
    """The module that a dotted name lies in: models.ConvVAE lies in models, distill.__version__ in distill."""
    name = name.removeprefix("distill.")
    while not exists(name):
        name = name.rpartition(".")[0] or "distill"
    return name


# A link in the source tree, which rglob does not follow.
KERNELS = sorted((ROOT / "kernels").glob("*.py"))
MODULES = {module_name(path): imports(path) for path in {*ROOT.rglob("*.py"), *KERNELS}}


def unit_of(module: str) -> str:
    """What stands on a layer: a package or a module of the top level."""
    return module.partition(".")[0]


def test_the_reader_of_imports_sees_them():
    assert {"cache.writer", "index", "preprocess.events"} <= MODULES["preprocess.pipeline"]
    assert "features.mel" in MODULES["features.reference"]
    assert "kernels" in MODULES["features.backends.triton"]
    assert "distill" in MODULES["models.store"]


def test_every_module_stands_on_a_layer():
    assert {unit_of(module) for module in MODULES} | {"_native"} == RANK.keys()


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"distill"}))
def test_imports_run_downward(module):
    unit = unit_of(module)
    for imported in MODULES[module] - {"distill"}:
        other = unit_of(imported)
        assert other == unit or RANK[other] < RANK[unit], f"{module} imports {imported}"


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """What imports itself in the end: empty once everything without imports is taken away, again and again."""
    left = dict(graph)
    while free := [name for name, imported in left.items() if not imported & left.keys() - {name}]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_cycle_in_python():
    assert cycle(MODULES) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_packages_that_only_name_what_is_elsewhere_import_nothing_of_it():
    for face in FACES:
        assert MODULES[face] <= {"_lazy"}, face


@pytest.mark.parametrize("name", sorted(name for name, imported in MODULES.items() if "_lazy" in imported))
def test_type_checkers_see_the_names_that_are_imported_on_first_use(name):
    module = importlib.import_module(f"distill.{name}".removesuffix(".distill"))
    blocks = [node for node in ast.parse(Path(module.__file__).read_text()).body if is_for_type_checkers(node)]
    seen = {alias.asname: node.module for block in blocks for node in block.body for alias in node.names}
    assert seen.keys() == {*module.__all__}
    for public, source in seen.items():
        assert getattr(module, public) is getattr(importlib.import_module(source), public)


@pytest.mark.parametrize(("path", "names"), PUBLIC_PATHS.items(), ids=PUBLIC_PATHS)
def test_public_import_paths_give_what_their_packages_give(path, names):
    module = importlib.import_module(f"distill.{path}")
    assert sorted(module.__all__) == sorted(names) == dir(module)
    package = importlib.import_module(f"distill.{unit_of(path)}")
    for name in names:
        assert getattr(module, name) is getattr(package, name, None) or name == "ComplexSpectrogramConfig"
    assert getattr(module, "ComplexSpectrogramConfig", distill.ComplexSpectrogramConfig) is (
        distill.ComplexSpectrogramConfig
    )


def test_the_kernel_knows_torch_and_triton_and_nothing_of_distill():
    assert len(KERNELS) > 1
    for path in KERNELS:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        outside = {name.split(".")[0] for name in named} - sys.stdlib_module_names
        assert outside <= {"torch", "triton"}, path


# Strings, characters and comments may contain anything. Unit tests import from the module that they are in.
RUST_TEXT = re.compile(r"""b?'(?:\\.|[^'\\])'|"(?:\\.|[^"\\])*"|//[^\n]*""")
RUST_TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*?\n\}", re.DOTALL)
RUST_USE = re.compile(r"\buse ([^;]+);")
RUST_GROUP = re.compile(r"([\w:]*)\{([^{}]*)\}")
RUST_PATH = re.compile(r"(?<![\w:])\w+(?:::(?:\w+|\*))+")


def rust_modules(crate: Path) -> dict[str, set[str]]:
    """Modules of a crate, and for each the other modules that define what it uses.

    A module is a file: "crate" is the root, "crate::walk::walker" is src/walk/walker.rs. A name that a
    module re-exports belongs to the module that defines it.
    """
    sources: dict[str, str] = {}
    for path in (crate / "src").rglob("*.rs"):
        parts = path.relative_to(crate / "src").with_suffix("").parts
        name = "::".join(["crate", *(part for part in parts if part not in ("lib", "mod"))])
        sources[name] = RUST_TEXT.sub("", RUST_TESTS.sub("", path.read_text()))

    def is_inside(module: str, path: str) -> bool:
        first = path.partition("::")[0]
        return first in ("crate", "super", "self") or f"{module}::{first}" in sources

    imports: dict[str, dict[str, str]] = {}
    paths: dict[str, set[str]] = {}
    for module, text in sources.items():
        used = [item.split(" as ") for tree in RUST_USE.findall(text) for item in use_paths(tree)]
        imports[module] = {names[-1].rpartition("::")[2]: names[0] for names in used if is_inside(module, names[0])}
        inline = RUST_PATH.findall(RUST_USE.sub("", text))
        paths[module] = {path for path in inline if is_inside(module, path)} | set(imports[module].values())

    def owner(module: str, path: str) -> str:
        """The module that defines `path`, which is relative to `module`."""
        first, _, rest = path.partition("::")
        if first in ("crate", "super", "self"):
            module = {"crate": "crate", "super": module.rpartition("::")[0], "self": module}[first]
        elif f"{module}::{first}" in sources:
            module = f"{module}::{first}"
        elif first in imports[module]:
            rest = "::".join(filter(None, [imports[module][first], rest]))
        else:
            return module
        return owner(module, rest) if rest else module

    return {module: {owner(module, path) for path in paths[module]} - {module} for module in sources}


def use_paths(tree: str) -> list[str]:
    """Paths of a `use` declaration: `a::{b, c::{d, e}}` has a::b, a::c::d and a::c::e."""
    grouped = True
    while grouped:
        tree, grouped = RUST_GROUP.subn(
            lambda group: ",".join(group[1] + item.strip() for item in group[2].split(",") if item.strip()), tree
        )
    return [path.strip().removesuffix("::self") for path in tree.split(",")]


def top_level(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """The modules of the root, each with everything below it as one."""
    tops: dict[str, set[str]] = {}
    for module, used in modules.items():
        top, *names = ("::".join(name.split("::")[:2]) for name in (module, *used))
        tops.setdefault(top, set()).update(names)
    return {top: used - {top} for top, used in tops.items()}


@pytest.mark.parametrize("crate", ["index", "features", "python"])
def test_no_cycle_in_rust(crate):
    modules = rust_modules(RUST / crate)
    assert len(modules) > 3
    assert any(modules.values())
    assert cycle(modules) == []
    assert cycle(top_level(modules)) == []


def test_the_reader_of_rust_imports_sees_them(tmp_path):
    sources = {
        "lib": "mod a;\nmod b;\npub use a::{One, deep::{Deep as Renamed}};\n// crate::b\n",
        "a/mod": "mod deep;\nmod other;\npub use deep::Deep;\npub struct One;\nfn f() { other::run() }",
        "a/deep": "/// [`One`](crate::One)\npub struct Deep;\n#[cfg(test)]\nmod tests {\n    use super::super::One;\n}",
        "a/other": "use std::{fs, io::{self, Read}};\nfn run() { let quote = '\"'; super::Deep }",
        "b": 'use crate::{Renamed, One}; fn text() { "crate::a::other" }',
    }
    for name, text in sources.items():
        path = tmp_path / "src" / f"{name}.rs"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    modules = rust_modules(tmp_path)
    assert modules == {
        "crate": {"crate::a", "crate::a::deep"},
        "crate::a": {"crate::a::deep", "crate::a::other"},
        "crate::a::deep": set(),
        "crate::a::other": {"crate::a::deep"},
        "crate::b": {"crate::a", "crate::a::deep"},
    }
    assert cycle(modules) == cycle(top_level(modules)) == []

    # Through a parent, through a re-export of the root, and between top-level modules only.
    (tmp_path / "src/a/other.rs").write_text("use super::One;")
    assert {"crate::a", "crate::a::other"} <= set(cycle(rust_modules(tmp_path)))
    (tmp_path / "src/a/other.rs").write_text("")
    (tmp_path / "src/a/deep.rs").write_text("pub struct Deep; fn f(one: crate::One) {}")
    assert {"crate::a", "crate::a::deep"} <= set(cycle(rust_modules(tmp_path)))
    (tmp_path / "src/a/deep.rs").write_text("pub struct Deep;")
    (tmp_path / "src/a/other.rs").write_text("use crate::b::text;")
    (tmp_path / "src/b.rs").write_text("use crate::Renamed; pub fn text() {}")
    modules = rust_modules(tmp_path)
    assert cycle(modules) == []
    assert {"crate::a", "crate::b"} <= set(cycle(top_level(modules)))


def test_importing_distill_and_the_index_imports_neither_torch_nor_numpy():
    code = "import sys, distill, distill.index, distill.config; print(sorted({'torch', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_public_names_are_those_of_the_interface():
    import distill.audio
    import distill.models
    import distill.training

    fixed = {
        distill.audio: "ComplexSpectrogram ComplexSpectrogramConfig AudioSpectrogram SpectrogramConfig "
        "AugmentationConfig load_audio preprocess_complex_spectrograms load_cache_manifest",
        distill.training: "TrainingConfig CachedSpectrogramDataset AudioTrainingDataset create_complex_data_loaders "
        "create_data_loaders train train_epoch validate_epoch",
        distill.models: "ConvVAE load_model",
    }
    for package, names in fixed.items():
        assert set(names.split()) <= set(package.__all__)
        assert all(callable(getattr(package, name)) for name in names.split())


def test_every_public_name_of_distill_resolves():
    assert len(distill.__all__) > 5
    for name in distill.__all__:
        assert getattr(distill, name) is not None
    assert not hasattr(distill, "no_such_name")
