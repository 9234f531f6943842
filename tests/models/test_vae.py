"""ConvVAE: shapes, the linear path compared with the PCA of scikit-learn, and the effect of training."""

import math

import pytest
import torch
from sklearn import decomposition

from distill.models import ConvVAE, ReconstructionR2, fit_pca, vae_loss
from distill.models.r2 import BandMeans
from distill.models.vae import to_patches

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 16, 11)


def make_rows(count, seed=0, shape=SHAPE):
    """Return rows with a ridge that glides over the bands: a nonlinear function of four numbers."""
    generator = torch.Generator().manual_seed(seed)
    channels, n_mels, n_frames = shape
    start, slope, width, level = torch.rand(4, count, 1, 1, generator=generator)
    frames = torch.linspace(0, 1, n_frames)
    centre = n_mels * (0.2 + 0.6 * start + (slope - 0.5) * 0.5 * frames)
    bands = torch.arange(n_mels, dtype=torch.float32)[:, None]
    offset = (bands - centre) / (1 + width)
    magnitude = (0.5 + level) * torch.exp(-(offset**2) - frames)
    rows = torch.stack([magnitude * 4 - 0.5, offset.clamp(-2, 2)], dim=1)
    return rows[:, :channels].contiguous()


def new_model(shape=SHAPE, latent_dim=6, seed=0, **options):
    torch.manual_seed(seed)
    channels, n_mels, n_frames = shape
    return ConvVAE(
        channels, latent_dim, n_mels=n_mels, n_frames=n_frames, base_channels=8, **({"latent_frames": 0} | options)
    )


@pytest.mark.parametrize(
    "shape", [(2, 128, 94), (1, 128, 94), (2, 16, 3), (2, 1, 1), (1, 33, 47), (2, 80, 101)], ids=str
)
@pytest.mark.parametrize("count", [1, 3])
def test_shapes_of_latents_and_reconstruction(shape, count):
    model = new_model(shape, latent_dim=5)
    x = torch.randn(count, *shape)
    reconstruction, mu, logvar = model(x)
    assert reconstruction.shape == x.shape
    assert mu.shape == logvar.shape == (count, 1, 5)
    assert model.decode(mu).shape == x.shape
    reconstruction.square().sum().backward()
    assert torch.isfinite(reconstruction).all()


@pytest.mark.parametrize(
    ("shape", "n_components"), [((2, 16, 11), 6), ((1, 16, 11), 6), ((2, 9, 7), 3)], ids=["two", "one", "fewer-axes"]
)
def test_a_new_model_with_a_linear_path_equals_the_pca_of_sklearn(shape, n_components):
    rows, others = make_rows(50, shape=shape), make_rows(9, seed=1, shape=shape)
    model = new_model(shape, latent_dim=6)
    model.init_linear_path(fit_pca(rows, n_components))
    peer = decomposition.PCA(n_components, svd_solver="full").fit(rows.flatten(1).double().numpy())
    flat = others.flatten(1).double().numpy()
    expected = torch.from_numpy(peer.inverse_transform(peer.transform(flat)).reshape(others.shape)).float()
    with torch.no_grad():
        reconstruction, mu, _ = model.eval()(others)
    torch.testing.assert_close(reconstruction, expected, atol=1e-3, rtol=0)
    # The latent vectors of the training rows are whitened, and zero along axes that the PCA does not have.
    with torch.no_grad():
        mu = model.encode(rows)[0][:, 0]
    torch.testing.assert_close(mu.std(dim=0, correction=0)[:n_components], torch.ones(n_components), atol=1e-2, rtol=0)
    assert mu[:, n_components:].eq(0).all()


def test_the_frequency_of_silent_bands_does_not_change_the_latents():
    rows = make_rows(50)
    model = new_model().eval()
    model.init_linear_path(fit_pca(rows, 6, silence=-0.5))
    noisy, loud = rows[:5].clone(), rows[:5].clone()
    quiet = rows[:5, 0] < -0.4999
    assert quiet.any()
    noisy[:, 1][quiet] += 2.0
    loud[:, 1][rows[:5, 0] > 0.5] += 2.0
    with torch.no_grad():
        mu, same, other = (model.encode(x)[0] for x in (rows[:5], noisy, loud))
    torch.testing.assert_close(same, mu, atol=1e-2, rtol=0)
    assert (other - mu).abs().max() > 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_latents_are_sampled_in_training_mode_only(seed):
    model = new_model()
    model.init_linear_path(fit_pca(make_rows(50), 6))
    x = make_rows(4, seed=1)
    torch.manual_seed(seed)
    with torch.no_grad():
        trained = [model.train()(x) for _ in range(2)]
        fixed = [model.eval()(x) for _ in range(2)]
    assert not torch.equal(trained[0][0], trained[1][0])
    assert torch.equal(trained[0][1], trained[1][1])
    assert torch.equal(fixed[0][0], fixed[1][0])
    torch.testing.assert_close(fixed[0][0], model.decode(fixed[0][1]))


def test_sampled_latents_have_the_encoded_variance():
    model = new_model().train()
    x = make_rows(1).expand(4000, *SHAPE)
    seen = []
    model.decode = lambda z: seen.append(z) or z
    with torch.no_grad():
        _, mu, logvar = model(x)
    assert logvar.eq(-3).all()
    assert (seen[0] - mu).std().item() == pytest.approx(math.exp(-1.5), rel=0.02)


def test_log_variance_is_clamped_for_extreme_input():
    model = new_model().eval()
    torch.nn.init.normal_(model.logvar.weight, std=10)
    _, logvar = model.encode(1e4 * make_rows(8))
    assert logvar.min() >= -10
    assert logvar.max() <= 4


@pytest.mark.parametrize("shape", [(3, 1, 16, 11), (3, 2, 16, 12), (2, 16, 11)], ids=str)
def test_errors_name_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"must be \(B, 2, 16, 11\)") as caught:
        new_model()(torch.zeros(shape))
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=r"z has shape \(3, 1, 5\), must be \(B, 1, 6\)"):
        new_model().decode(torch.zeros(3, 1, 5))


def test_a_pca_of_rows_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="352"):
        new_model().init_linear_path(fit_pca(torch.randn(4, 2, 16, 12), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 3}, "in_channels=3 must be 1 or 2"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"n_frames": 0}, "n_frames=0"),
        ({"base_channels": 12}, "base_channels=12 must be a multiple of 8"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"latent_frames": 5}, "latent_frames=5 must be 0, 4, 8 or 16"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ConvVAE(**options)


def score(model, rows, means):
    metric = ReconstructionR2(means)
    with torch.no_grad():
        metric.update(model.eval()(rows)[0], rows, energy_of(rows))
    return metric.result()


def energy_of(rows):
    return (rows[:, 0] + 0.5).clamp(min=0)


def train(model, rows, steps=100):
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        x = rows[torch.randint(len(rows), (32,), generator=generator)]
        reconstruction, mu, logvar = model(x)
        losses = vae_loss(reconstruction, x, mu, logvar, energy_of(x), if_weight=0.5, kl_weight=2e-3, free_bits=0.05)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()


@pytest.mark.parametrize("start", ["pca", "scratch"])
def test_training_improves_held_out_rows(start):
    rows, held_out = make_rows(300), make_rows(80, seed=1)
    means = BandMeans(2, SHAPE[1])
    means.update(rows, energy_of(rows))
    model = new_model()
    if start == "pca":
        model.init_linear_path(fit_pca(rows, 6, silence=-0.5))
    before = score(model, held_out, means.result())
    train(model, rows)
    after = score(model, held_out, means.result())
    # The mean of each band scores 0, as does nearly every model that ignores its input.
    assert after["magnitude_r2"] > max(before["magnitude_r2"] + 0.02, 0.3)
    assert after["if_r2"] > max(before["if_r2"] + 0.02, 0.3)


def test_a_start_from_the_pca_scores_far_better_than_one_from_scratch():
    rows, held_out = make_rows(300), make_rows(80, seed=1)
    means = BandMeans(2, SHAPE[1])
    means.update(rows, energy_of(rows))
    scratch, started = new_model(), new_model()
    started.init_linear_path(fit_pca(rows, 6, silence=-0.5))
    before, after = score(scratch, held_out, means.result()), score(started, held_out, means.result())
    assert after["magnitude_r2"] > max(0.5, before["magnitude_r2"] + 0.3)
    assert after["if_r2"] > max(0.5, before["if_r2"] + 0.3)


@pytest.mark.parametrize("frames", [4, 8, 16])
@pytest.mark.parametrize("shape", [(2, 128, 94), (1, 16, 16), (2, 9, 5)], ids=str)
def test_a_sequence_has_a_latent_vector_for_each_patch_of_frames(shape, frames):
    model = new_model(shape, latent_dim=5, latent_frames=frames)
    x = torch.randn(3, *shape)
    reconstruction, mu, logvar = model(x)
    assert reconstruction.shape == x.shape
    assert mu.shape == logvar.shape == (3, math.ceil(shape[2] / frames), 5)
    reconstruction.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_new_sequence_model_equals_the_pca_of_sklearn_of_its_patches():
    rows, others = make_rows(60, shape=(2, 16, 24)), make_rows(9, seed=1, shape=(2, 16, 24))
    model = new_model((2, 16, 24), latent_frames=8)

    def cut(x):
        return x.reshape(len(x), 2, 16, 3, 8).permute(0, 3, 1, 2, 4)

    model.init_linear_path(fit_pca(cut(rows).flatten(0, 1), 6))
    peer = decomposition.PCA(6, svd_solver="full").fit(cut(rows).reshape(180, -1).double().numpy())
    found = peer.inverse_transform(peer.transform(cut(others).reshape(27, -1).double().numpy()))
    expected = torch.from_numpy(found).reshape(9, 3, 2, 16, 8).permute(0, 2, 3, 1, 4).reshape(others.shape).float()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(others)[0], expected, atol=1e-3, rtol=0)


def test_a_change_of_one_latent_vector_stays_near_its_time():
    shape = (2, 16, 64)
    model = new_model(shape, latent_frames=8).eval()
    model.init_linear_path(fit_pca(to_patches(make_rows(60, shape=shape), 8).flatten(0, 1), 6))
    z = torch.zeros(1, 8, 6)
    moved = z.clone()
    moved[:, 3, 0] = 2.0
    with torch.no_grad():
        change = (model.decode(moved) - model.decode(z)).abs().amax(dim=(0, 1, 2))
    assert change[24:32].min() > 0.01
    assert change[:24].max() < 1e-6 > change[32:].max()
