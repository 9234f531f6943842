"""Who imports whom: data flows one way, and a stage knows configuration, errors and plain types, not other stages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import distill

ROOT = Path(distill.__file__).parent

# What every module may import: no stage, no composition.
PLAIN = {"distill", "_lazy", "_native", "config", "recipe", "errors", "device", "files", "figures"}
COMMANDS = {"train", "commands", "sound_commands", "demo", "console", "entry", "options"}
# The parts of the pipeline, in the order in which data flows. Modules of one stage may import each other.
STAGES = {
    "index": {"index"},
    "decode": {"audio.decode", "audio.chunking", "audio.windows"},
    "wav": {"audio.wav"},
    "augmentation": {"audio.augmentation"},
    "features": {
        f"audio.{name}" for name in ("fused", "inverse", "mel", "ops", "reference", "rows", "rust", "spectrogram")
    }
    # And back to sound, and how far from it.
    | {"audio.power", "audio.phase", "audio.distance", "audio.continuous"},
    "cache": {"cache"}
    | {f"cache.{name}" for name in ("compaction", "damage", "export", "lock", "manifest", "pack", "reader", "writer")},
    "latent": {"latent.decomposition", "latent.measures", "latent.pictures"},
    "models": {
        "models",
        "models.vae",
        "models.pca",
        "models.density",
        "models.losses",
        "models.metrics",
        "models.prior",
        "models.store",
    },
}
# The modules that put stages together, and exactly which ones. A module that is in neither table fails the test.
COMPOSE = {
    # A plain result, and how it is told.
    "audio.outcome": set(),
    # One file to rows: what preprocessing runs in threads.
    "audio.extraction": {"decode", "augmentation", "features"},
    # Index to cache, and nothing else does.
    "audio.preprocessing": {
        "index",
        "decode",
        "augmentation",
        "features",
        "cache",
        "audio.extraction",
        "audio.outcome",
    },
    # The same comparison without the work.
    "cache.status": {"index", "cache"},
    # Cache and dataset against the manifest; what fails is preprocessed again.
    "verification": {"index", "cache", "audio.preprocessing"},
    # Rows of the cache, or waveforms of the v1.0 path, as tensors.
    "training.dataset": {"decode", "cache"},
    "training.loading": {"training.dataset", "training.resolve"},
    "training.normalization": set(),
    "training.variation": set(),
    "training.material": {f"training.{name}" for name in ("loading", "normalization", "variation")},
    "training.epochs": {"models", "training.normalization", "training.variation"},
    "training.checkpoint": set(),
    "training.pictures": set(),
    "training.quality": {"features", "models", "training.material", "training.normalization"},
    # What it shows of an epoch: figures, and previews as they were written.
    "training.board": {"previews"},
    # How a run looks and sounds.
    "training.report": {"features", "models", "synthesis", "previews"}
    | {f"training.{name}" for name in ("board", "checkpoint", "material", "normalization", "pictures", "quality")},
    "training.resolve": set(),
    # Names of axes, for the weights that they were found in.
    "latent.axes": {"models"},
    # A dataset's rows, whichever path they come by, and what a trained model makes of them.
    "latent.rows": {"index", "decode", "features", "cache", "audio.preprocessing", "audio.outcome"}
    | {"training.normalization"},
    "latent.analysis": {"features", "cache", "latent", "models", "latent.axes", "latent.rows"}
    | {"training.checkpoint", "training.normalization"},
    "training.session": {"models"}
    | {f"training.{name}" for name in ("board", "checkpoint", "epochs", "material", "normalization", "report")},
    # A run as an instrument, and what is played on it.
    "synthesis": {"features", "models", "training.checkpoint", "training.normalization"},
    "sound_pictures": set(),
    "generation": {"decode", "wav", "synthesis", "latent.axes"},
    "reconstruction": {"decode", "features", "wav", "synthesis", "sound_pictures"},
    "previews": {"features", "wav", "synthesis", "sound_pictures"},
    # Cache to model, and nothing else does; at the end, what the model's axes are.
    "training.loop": {"index", "features", "audio.preprocessing", "audio.outcome", "latent.analysis"}
    | {f"training.{name}" for name in ("board", "checkpoint", "dataset", "loading", "resolve", "session")},
}
# Packages that only name what is inside them.
FACES = {"", "audio", "latent", "training"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of distill that a file imports, anywhere in it but for types alone; "distill" for its version."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    package = ["distill", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names} if is_package(base) else {base}
    return {name.removeprefix("distill.") for name in found if name.split(".")[0] == "distill"}


def is_package(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "distill" and (ROOT.joinpath(*parts[1:]) / "__init__.py").exists()


def known(name: str) -> str:
    """The module that a dotted name lies in: "models.ConvVAE" lies in "models"."""
    while name and not (ROOT.joinpath(*name.split(".")).with_suffix(".py").exists() or is_package(f"distill.{name}")):
        if name == "_native":
            return name
        name = name.rpartition(".")[0]
    return name or "distill"


def stage_of(module: str) -> str:
    return next((stage for stage, modules in STAGES.items() if module in modules), module)


# A link in the source tree, which rglob does not follow.
KERNELS = sorted((ROOT / "kernels").glob("*.py"))
STAGES["features"] |= {module_name(path) for path in KERNELS}
MODULES = {module_name(path): {known(name) for name in imports(path)} for path in {*ROOT.rglob("*.py"), *KERNELS}}


def test_the_reader_of_imports_sees_them():
    assert {"cache.writer", "index", "audio.extraction"} <= MODULES["audio.preprocessing"]
    assert "audio.mel" in MODULES["audio.reference"]
    assert "kernels" in MODULES["audio.fused"]
    assert "audio.preprocessing" in MODULES["commands"]
    assert "distill" in MODULES["models.store"]


def test_every_module_has_its_place():
    placed = set().union(*STAGES.values()) | COMPOSE.keys() | PLAIN | COMMANDS | FACES
    assert MODULES.keys() - {""} <= placed, "say in this file what a new module may import"
    assert COMPOSE.keys() <= MODULES.keys()


def test_plain_modules_import_no_stage():
    for module in PLAIN & MODULES.keys():
        assert MODULES[module] <= PLAIN, module


def test_a_stage_imports_no_other_stage():
    for stage, modules in STAGES.items():
        for module in modules & MODULES.keys():
            assert MODULES[module] - PLAIN <= modules, f"{module} of stage {stage}"


def test_what_composes_stages_composes_only_these():
    for module, allowed in COMPOSE.items():
        assert {stage_of(name) for name in MODULES[module] - PLAIN} <= allowed, module


def test_faces_only_name_what_is_inside_them():
    for module in FACES:
        outside = {name for name in MODULES[module] if not module or not name.startswith(f"{module}.")}
        assert outside <= PLAIN, module


def test_the_kernel_knows_torch_and_triton_and_nothing_of_distill():
    assert len(KERNELS) > 1
    for path in KERNELS:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        outside = {name.split(".")[0] for name in named} - sys.stdlib_module_names
        assert outside <= {"torch", "triton"}, path


def test_nothing_imports_a_command():
    for module, imported in MODULES.items():
        if module not in COMMANDS:
            assert not imported & COMMANDS, module


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
