"""Configurations: all faults at once, TOML and back, presets, and what the fingerprint covers."""

from __future__ import annotations

import dataclasses
import math

import pytest

from distill.cache.row_format import fingerprint
from distill.config import (
    PRESETS,
    AugmentationConfig,
    ComplexSpectrogramConfig,
    SpectrogramConfig,
    TrainingConfig,
    config_from_dict,
    config_to_toml,
    feature_identity,
    spectrogram_fields,
)
from distill.errors import ConfigError
from distill.faults import collecting_faults

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

FAULTS = [
    (ComplexSpectrogramConfig, {"n_fft": 1001}, "n_fft=1001 must be even, from 32 to 65536"),
    (ComplexSpectrogramConfig, {"n_fft": 16, "hop_length": 8, "n_mels": 8}, "from 32 to 65536"),
    (ComplexSpectrogramConfig, {"hop_length": 0}, "hop_length=0 must be from 1 to n_fft=2048"),
    (ComplexSpectrogramConfig, {"hop_length": 4096}, "hop_length=4096"),
    (ComplexSpectrogramConfig, {"n_mels": 1026}, "n_mels=1026 must be from 1 to 1025"),
    (ComplexSpectrogramConfig, {"sample_rate": 10}, "sample_rate=10"),
    (ComplexSpectrogramConfig, {"f_min": -1.0}, "f_min=-1.0"),
    (ComplexSpectrogramConfig, {"f_min": 24_000.0}, "below 24000 Hz"),
    (ComplexSpectrogramConfig, {"f_max": 24_001.0}, "at most 24000 Hz"),
    (ComplexSpectrogramConfig, {"f_min": 500.0, "f_max": 400.0}, "f_max=400.0 must be above f_min=500.0"),
    (ComplexSpectrogramConfig, {"f_max": math.nan}, "f_max=nan must be finite"),
    (ComplexSpectrogramConfig, {"if_masking_threshold": -1e-9}, "if_masking_threshold"),
    (ComplexSpectrogramConfig, {"n_fft": "2048"}, "n_fft='2048' must be int"),
    (ComplexSpectrogramConfig, {"n_fft": 2048.0}, "n_fft=2048.0 must be int"),
    (ComplexSpectrogramConfig, {"n_mels": True}, "n_mels=True must be int"),
    (ComplexSpectrogramConfig, {"enabled": 1}, "enabled=1 must be bool"),
    (SpectrogramConfig, {"n_fft": 769}, "n_fft=769 must be even"),
    (SpectrogramConfig, {"norm": "slany"}, "norm='slany' must be left out or 'slaney'; did you mean 'slaney'?"),
    (SpectrogramConfig, {"mel_scale": "mel"}, "mel_scale='mel' must be one of 'htk', 'slaney'"),
    (SpectrogramConfig, {"win_length": 1}, "win_length=1 must be from 2 to n_fft=2048"),
    (SpectrogramConfig, {"win_length": 2049}, "win_length=2049 must be from 2 to n_fft=2048"),
    (SpectrogramConfig, {"center": None}, "center=None must be bool"),
    (SpectrogramConfig, {"power": 3}, "power=3 must be 1 or 2"),
    (SpectrogramConfig, {"compression": "dB"}, "compression='dB' must be one of 'log1p', 'log', 'log10', 'db', 'none'"),
    (SpectrogramConfig, {"floor": 0.0}, "floor=0.0 must be from 1e-30 to 1.0"),
    (AugmentationConfig, {"gain_db": -1.0}, "gain_db"),
    (AugmentationConfig, {"noise_db": 5.0}, "noise_db"),
    (AugmentationConfig, {"speed": 0.6}, "speed"),
    (AugmentationConfig, {"pitch_semitones": 25.0}, "pitch_semitones"),
    (AugmentationConfig, {"time_shift_s": math.inf}, "time_shift_s=inf must be finite"),
    (TrainingConfig, {"chunk_samples": 1024}, "chunk_samples=1024 must be above n_fft/2 = 1024"),
    (
        TrainingConfig,
        {"chunk_samples": 2047, "complex_spectrogram": ComplexSpectrogramConfig(center=False)},
        "chunk_samples=2047 must be at least n_fft = 2048, without center",
    ),
    (TrainingConfig, {"normalize": "flie"}, "did you mean 'file'"),
    (TrainingConfig, {"val_fraction": 1.0}, "val_fraction"),
    (TrainingConfig, {"val_fraction": 0.0}, "val_fraction"),
    (TrainingConfig, {"device": "cuda:x"}, "device='cuda:x'"),
    (TrainingConfig, {"augmentation_expansion": -1}, "augmentation_expansion"),
    (TrainingConfig, {"batch_size": 0}, "batch_size"),
    (TrainingConfig, {"seed": 2**63}, "seed"),
]


@pytest.mark.parametrize(("kind", "values", "message"), FAULTS)
def test_an_invalid_value_is_reported_with_its_rule(kind, values, message):
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert message in str(caught.value)
    assert len(caught.value.faults) == 1
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "values",
    [
        {"n_fft": 32, "hop_length": 32, "n_mels": 17},
        {"f_min": 0, "f_max": 24_000},
        {"sample_rate": 192_000, "n_fft": 65_536},
        {"if_masking_threshold": 0},
    ],
)
def test_values_at_the_limits_are_valid(values):
    assert dataclasses.asdict(ComplexSpectrogramConfig(**values)).items() >= values.items()


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        ComplexSpectrogramConfig(n_fft=1001, hop_length=0, f_min=-5.0, if_masking_threshold=-1.0)
    names = [fault.split("=")[0] for fault in caught.value.faults]
    assert names == ["n_fft", "hop_length", "f_min", "if_masking_threshold"]


@pytest.mark.parametrize("values", [{"n_fft": "2048"}, {"sample_rate": "48000"}, {"f_min": None}])
def test_a_value_of_the_wrong_type_is_no_fault_of_other_fields(values):
    with pytest.raises(ConfigError) as caught:
        SpectrogramConfig(**values, f_max=24_000.0, n_mels=0)
    assert [fault.split("=")[0] for fault in caught.value.faults] == [*values, "n_mels"]


def test_faults_of_several_configurations_are_raised_as_one_error():
    def make():
        with collecting_faults():
            TrainingConfig(complex_spectrogram=ComplexSpectrogramConfig(n_mels=0), epochs=0)
            AugmentationConfig(speed=-1.0)

    with pytest.raises(ConfigError) as caught:
        make()
    assert [fault.split("=")[0] for fault in caught.value.faults] == ["n_mels", "epochs", "speed"]
    # The next one starts without faults.
    with collecting_faults():
        TrainingConfig()


def test_toml_gives_the_same_configuration_back():
    config = TrainingConfig(
        complex_spectrogram=ComplexSpectrogramConfig(f_max=12_000.5, n_mels=64, if_masking_threshold=3e-7),
        augmentation=AugmentationConfig(pitch_semitones=1.5),
        augmentation_expansion=3,
        normalize="none",
        dropout=0.25,
        seed=2**62 + 1,
    )
    text = config_to_toml(config)
    assert tomllib.loads(text)["complex_spectrogram"]["n_mels"] == 64
    assert config_from_dict(tomllib.loads(text)) == config
    assert config_from_dict(tomllib.loads(config_to_toml(TrainingConfig()))) == TrainingConfig()


def test_options_of_a_feature_are_in_toml_and_other_files_only_if_they_are_not_at_their_default():
    options = {**OTHER, "center": False, "floor": 1e-3}
    config = TrainingConfig(complex_spectrogram=ComplexSpectrogramConfig(**options))
    text = config_to_toml(config)
    assert config_from_dict(tomllib.loads(text)) == config
    assert spectrogram_fields(config.complex_spectrogram).items() >= options.items()
    assert not options.keys() & spectrogram_fields(ComplexSpectrogramConfig()).keys()
    assert not options.keys() & tomllib.loads(config_to_toml(TrainingConfig()))["complex_spectrogram"].keys()


def test_fields_that_toml_leaves_out_come_from_the_base():
    base = TrainingConfig(epochs=7, complex_spectrogram=ComplexSpectrogramConfig(n_mels=64))
    config = config_from_dict({"latent_dim": 9, "complex_spectrogram": {"hop_length": 256}}, base)
    assert (config.epochs, config.latent_dim) == (7, 9)
    assert (config.complex_spectrogram.n_mels, config.complex_spectrogram.hop_length) == (64, 256)


def test_all_faults_of_a_file_are_reported_with_the_nearest_key():
    values = {
        "latent_dimm": 3,
        "xyzzy": 1,
        "epochs": "many",
        "augmentation": 5,
        "complex_spectrogram": {"n_ftt": 512, "hop_length": 0},
    }
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values)
    faults = caught.value.faults
    assert len(faults) == 6
    message = "\n".join(faults)
    for part in (
        "unknown key 'latent_dimm'; did you mean 'latent_dim'?",
        "unknown key 'xyzzy'\n",
        "epochs='many' must be",
        "augmentation=5 must be a table",
        "unknown key 'complex_spectrogram.n_ftt'; did you mean 'complex_spectrogram.n_fft'?",
        "hop_length=0",
    ):
        assert part in message + "\n"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_change_exactly_their_fields(name):
    config = config_from_dict(PRESETS[name])
    names = [item.name for item in dataclasses.fields(config)]
    changed = {name for name in names if getattr(config, name) != getattr(TrainingConfig(), name)}
    assert changed == set(PRESETS[name])
    assert bool(changed) == (name != "default")


def identity(feature=None, augmentation=None, **changes) -> str:
    values = {"augmentation_expansion": 1, "chunk_samples": 48_000, "sample_rate": 48_000, "normalize": "file"}
    values |= {"cache_dtype": "float32"}
    feature, augmentation = feature or ComplexSpectrogramConfig(), augmentation or AugmentationConfig()
    return fingerprint(feature_identity(feature, augmentation, **(values | changes)))


# Other values of fields that cannot be doubled.
OTHER = {"mel_scale": "slaney", "norm": "slaney", "win_length": 1_000, "power": 1, "compression": "db"}


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, item.name) for kind in (ComplexSpectrogramConfig, AugmentationConfig) for item in dataclasses.fields(kind)],
)
def test_every_field_except_enabled_changes_the_fingerprint(kind, field):
    value = getattr(kind(), field)
    other = OTHER.get(field) or (not value if isinstance(value, bool) else 2 * value if value else 20.0)
    changed = kind(**{field: other})
    assert getattr(changed, field) != value
    given = {"feature" if kind is ComplexSpectrogramConfig else "augmentation": changed}
    assert (identity(**given) == identity()) == (field == "enabled")


@pytest.mark.parametrize(
    "changes",
    [
        *({"augmentation_expansion": 2}, {"chunk_samples": 24_000}, {"sample_rate": 44_100}, {"normalize": "chunk"}),
        {"cache_dtype": "float16"},
    ],
)
def test_every_other_setting_of_a_row_changes_the_fingerprint(changes):
    assert identity(**changes) != identity()


def test_augmentation_without_variants_does_not_change_the_fingerprint():
    other = AugmentationConfig(gain_db=1.0)
    assert identity(augmentation=other, augmentation_expansion=0) == identity(augmentation_expansion=0)
    assert identity(augmentation=other) != identity()


def test_configurations_are_frozen_and_documented():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().epochs = 3
    for kind in (ComplexSpectrogramConfig, SpectrogramConfig, AugmentationConfig, TrainingConfig):
        assert kind.__doc__
        assert kind() == kind()
        assert hash(kind()) == hash(kind())


def test_float16_cannot_hold_powers():
    feature = ComplexSpectrogramConfig(compression="none")
    with pytest.raises(ConfigError, match="cache_dtype='float16' cannot hold compression='none'"):
        TrainingConfig(feature, cache_dtype="float16")
    assert TrainingConfig(feature).cache_dtype == "float32"


def test_a_front_end_is_found_by_its_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'hifigan'"):
        SpectrogramConfig.preset("hifi-gan")
    with pytest.raises(ConfigError, match=r"field='n_mel' must be .*did you mean 'n_mels'"):
        SpectrogramConfig.preset("whisper", n_mel=3)
    with pytest.raises(ConfigError, match="did you mean 'htk'"):
        SpectrogramConfig(mel_scale="HTK")


def test_a_power_may_be_a_float_as_in_torchaudio_and_librosa():
    assert SpectrogramConfig(power=2.0) == SpectrogramConfig()
    assert repr(SpectrogramConfig(power=1.0)) == repr(SpectrogramConfig(power=1))
    with pytest.raises(ConfigError, match=r"power=1.5 must be"):
        SpectrogramConfig(power=1.5)
