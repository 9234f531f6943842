"""Model files: bit-equal round trip, atomic writes, and errors that name file, reason and remedy."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import distill
from distill.errors import RunError
from distill.models import ConvVAE, fit_pca, load_model, save_model
from distill.models.store import load_description

FEATURES = {"n_mels": 9, "sample_rate": 48_000, "f_max": None}
STATISTICS = {"mag_mean": 0.1, "mag_std": 1.7}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = ConvVAE(2, 4, n_mels=9, n_frames=7, base_channels=8, dropout=0.25, latent_frames=0)
    model.init_linear_path(fit_pca(torch.randn(20, 2, 9, 7), 4, silence=-0.3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def run_dir(tmp_path, model):
    save_model(tmp_path / "run", model, features=FEATURES, statistics=STATISTICS)
    return tmp_path / "run"


def test_round_trip_is_bit_equal_and_in_eval_mode(run_dir, model):
    loaded = load_model(run_dir)
    assert not loaded.training
    assert loaded.config == model.config
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    x = torch.randn(3, 2, 9, 7)
    with torch.no_grad():
        for output, expected_output in zip(loaded(x), model.eval()(x), strict=True):
            assert torch.equal(output, expected_output)


def test_the_description_has_architecture_features_and_statistics(tmp_path, model):
    save_model(tmp_path, model, features=FEATURES, statistics=STATISTICS, epoch=3)
    description = load_description(tmp_path)
    assert description["architecture"] == model.config
    assert description["features"] == FEATURES
    assert description["statistics"] == STATISTICS
    assert description["distill_version"] == distill.__version__
    assert description["epoch"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_model_and_no_temporary_file(run_dir, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with torch.no_grad():
        model.mu.bias.add_(1)
    with pytest.raises(OSError, match="No space"):
        save_model(run_dir, model, features=FEATURES, statistics=STATISTICS)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_values_that_json_does_not_have_are_rejected_before_anything_is_written(tmp_path, model):
    for statistics in ({"mag_mean": float("nan")}, {"mag_mean": object()}):
        with pytest.raises(ValueError, match=r"model\.json"):
            save_model(tmp_path / "run", model, features=FEATURES, statistics=statistics)
    with pytest.raises(ValueError, match="'format'"):
        save_model(tmp_path / "run", model, features=FEATURES, statistics=STATISTICS, format=2)
    assert not (tmp_path / "run").exists()


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def rename_tensor(path):
    weights = load_file(path)
    weights["stranger"] = weights.pop("mu.bias")
    save_file(weights, path)


def narrow(path):
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)


def make_infinite(path):
    weights = load_file(path)
    weights["mu.bias"][1] = torch.inf
    save_file(weights, path)


BROKEN = {
    "no-weights": ("model.safetensors", lambda path: path.unlink(), "missing"),
    "no-description": ("model.json", lambda path: path.unlink(), "missing"),
    "weights-cut": ("model.safetensors", truncate, "damaged"),
    "weights-empty": ("model.safetensors", lambda path: path.write_bytes(b""), "damaged"),
    "weights-noise": ("model.safetensors", lambda path: path.write_bytes(bytes(range(256)) * 9), "damaged"),
    "description-cut": ("model.json", truncate, "damaged"),
    "description-binary": ("model.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "damaged"),
    "description-list": ("model.json", lambda path: path.write_text("[1]"), "holds no object"),
    "no-statistics": ("model.json", lambda path: edit(path, statistics=None), "statistics=None must be a table"),
    "no-deviation": (
        "model.json",
        lambda path: edit(path, statistics={"mag_mean": 0.1}),
        "'statistics.mag_std' is missing",
    ),
    "zero-deviation": (
        "model.json",
        lambda path: edit(path, statistics=STATISTICS | {"mag_std": 0}),
        "statistics.mag_std=0 must be",
    ),
    "other-format": ("model.json", lambda path: edit(path, format=99), "format=99 must be 3"),
    "bad-architecture": ("model.json", lambda path: edit(path, architecture={"in_channels": 5}), "in_channels=5"),
    "ill-typed": (
        "model.json",
        lambda path: edit(path, architecture={"latent_dim": "4"}),
        "latent_dim='4' must be int",
    ),
    "unknown-option": (
        "model.json",
        lambda path: edit(path, architecture={"depth": 5}),
        "unknown key 'architecture.depth'",
    ),
    "weights-directory": ("model.safetensors", lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "other-tensors": ("model.safetensors", rename_tensor, "does not fit model.json: 'mu.bias' is missing"),
    "infinite": ("model.safetensors", make_infinite, "'mu.bias' holds values that are not finite"),
    "other-type": ("model.safetensors", narrow, "must be float32"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_errors_of_damaged_runs_name_file_reason_and_remedy(case, run_dir):
    name, damage, reason = BROKEN[case]
    damage(run_dir / name)
    with pytest.raises(RunError) as caught:
        load_model(run_dir)
    assert str(run_dir / name) in str(caught.value)
    assert reason in str(caught.value)
    assert caught.value.tip


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"latent_dim": 5}, "[5, 126]"),
        ({"latent_dim": 10**9}, "[1000000000, 126]"),
        ({"n_mels": 2**62, "n_frames": 2**62}, f"[4, {2**125}]"),
        ({"base_channels": 8 * 10**9}, "[8000000000, 2, 3, 3]"),
        ({"n_mels": 63, "n_frames": 1}, ""),
    ],
)
def test_weights_of_another_size_are_an_error_whatever_the_size(run_dir, change, shape):
    description = json.loads((run_dir / "model.json").read_text())
    edit(run_dir / "model.json", architecture=description["architecture"] | change)
    with pytest.raises(RunError, match=r"does not fit model\.json: .* is float32 \[.*\], must be float32 \[") as caught:
        load_model(run_dir)
    assert shape in str(caught.value)


def test_a_pickle_is_not_loaded(run_dir, model):
    torch.save(model.state_dict(), run_dir / "model.safetensors")
    with pytest.raises(RunError, match="damaged"):
        load_model(run_dir)
