from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.audio import AudioSpectrogram
from distill.models import ConvVAE
from distill.training import create_complex_data_loaders, create_data_loaders, train_epoch, validate_epoch
from distill.training.epochs import Means


@pytest.fixture
def loaders(cache, small_config):
    return create_complex_data_loaders(cache, small_config)


def new_model(in_channels=2):
    torch.manual_seed(0)
    return ConvVAE(in_channels=in_channels, latent_dim=8, n_mels=32, n_frames=32)


def test_training_on_cached_rows_lowers_the_loss(loaders):
    model, stats = new_model(), loaders[0].dataset.normalization_stats
    options = {"use_cached_spectrograms": True, "normalization_stats": stats}
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    before = validate_epoch(model, loaders[1], **options)
    for _ in range(4):
        trained = train_epoch(model, loaders[0], optimizer, **options)
    after = validate_epoch(model, loaders[1], **options)
    assert set(trained) == {"loss", "magnitude", "instantaneous_frequency", "kl"}
    assert after["magnitude"] < 0.8 * before["magnitude"]
    assert after["magnitude_r2"] > before["magnitude_r2"] + 0.2


def test_training_on_waveforms_lowers_the_loss(sounds, small_config):
    files = sorted(path for path in sounds.rglob("*") if path.is_file())
    train, val = create_data_loaders(files, small_config)
    model, spectrogram = new_model(1), AudioSpectrogram(small_config.spectrogram)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    before = validate_epoch(model, val, spectrogram)
    for _ in range(4):
        train_epoch(model, train, optimizer, spectrogram)
    after = validate_epoch(model, val, spectrogram)
    assert after["instantaneous_frequency"] == 0
    assert after["magnitude"] < 0.8 * before["magnitude"]


def test_validation_is_repeatable_and_leaves_the_weights_unchanged(loaders):
    model = new_model()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"use_cached_spectrograms": True, "normalization_stats": loaders[0].dataset.normalization_stats}
    first, second = (validate_epoch(model, loaders[1], **options) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_r2_equals_its_definition(loaders):
    model, stats = new_model(), loaders[0].dataset.normalization_stats
    band_means = torch.randn(2, 32)
    options = {"use_cached_spectrograms": True, "normalization_stats": stats, "band_means": band_means}
    found = validate_epoch(model, loaders[1], **options)
    target = torch.cat(list(loaders[1]))
    with torch.no_grad():
        output = model.eval()(target)[0]
    target, output = target.double().numpy(), output.double().numpy()
    weight = target[:, 0] * stats["mag_std"] + stats["mag_mean"]
    residual, spread = (output - target) ** 2, (target - band_means.numpy()[None, :, :, None]) ** 2
    assert found["magnitude_r2"] == pytest.approx(1 - residual[:, 0].sum() / spread[:, 0].sum(), abs=1e-5)
    expected = 1 - np.sum(weight * residual[:, 1]) / np.sum(weight * spread[:, 1])
    assert found["if_r2"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "cached"),
    [((4, 1, 8000), True), ((4, 1, 32, 32), True), ((4, 8000), False), ((4, 2, 8000), False)],
    ids=["waveforms as rows", "one channel", "no channel axis", "stereo"],
)
def test_a_batch_of_the_wrong_shape_is_an_error_that_names_it(shape, cached):
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(shape)
    spectrogram = AudioSpectrogram()
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        train_epoch(model, [batch], optimizer, spectrogram, use_cached_spectrograms=cached)
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        validate_epoch(model, [batch], spectrogram, use_cached_spectrograms=cached)


def test_waveforms_need_a_spectrogram():
    model = new_model(1)
    with pytest.raises(ValueError, match="need a spectrogram"):
        train_epoch(model, [torch.randn(1, 1, 8000)], torch.optim.AdamW(model.parameters()))


def test_cached_rows_need_the_statistics_that_they_were_normalised_with(loaders):
    model = new_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="pass the normalization_stats"):
        train_epoch(model, loaders[0], torch.optim.AdamW(model.parameters()), use_cached_spectrograms=True)
    with pytest.raises(ValueError, match="pass the normalization_stats"):
        validate_epoch(model, loaders[1], use_cached_spectrograms=True)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_an_epoch_in_two_parts_equals_one_pass(loaders):
    def train(model, parts):
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        loader, means = loaders[0], Means()
        torch.manual_seed(1)
        for first, count in parts:
            loader.batch_sampler.epoch, loader.batch_sampler.first_step = 0, first
            left = iter([True] * count)
            result = train_epoch(
                model,
                loader,
                optimizer,
                use_cached_spectrograms=True,
                normalization_stats=loader.dataset.normalization_stats,
                shifted_share=0.5,
                means=means,
                before_step=lambda left=left: next(left, False),
            )
        return result

    steps = len(loaders[0])
    whole, parted = new_model(), new_model()
    assert train(whole, [(0, steps)]) == train(parted, [(0, 2), (2, steps)])
    assert all(torch.equal(value, parted.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.gpu
def test_training_on_cuda_lowers_the_loss(loaders):
    model = new_model().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    options = {"use_cached_spectrograms": True, "normalization_stats": loaders[0].dataset.normalization_stats}
    losses = [train_epoch(model, loaders[0], optimizer, **options) for _ in range(4)]
    assert losses[-1]["magnitude"] < 0.8 * losses[0]["magnitude"]
