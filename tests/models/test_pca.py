"""PCA, compared with scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn import decomposition

from distill.models.pca import fit_pca, gate_frequency

SHAPE = (2, 6, 5)
# (dtype, atol, rtol) between a float32 Gram matrix and a float64 SVD, for data of order one.
PEER = (torch.float32, 2e-4, 0.0)


def make_rows(count=40, rank=8, shape=SHAPE, seed=0):
    """Return float32 rows with decaying variance and a nonzero mean."""
    rng = np.random.default_rng(seed)
    size = math.prod(shape)
    scales = 3.0 * 0.7 ** np.arange(rank)
    rows = rng.standard_normal((count, rank)) * scales @ rng.standard_normal((rank, size)) / math.sqrt(size)
    rows += rng.standard_normal(size)
    return torch.from_numpy(rows.reshape(count, *shape)).float()


@pytest.mark.parametrize("count", [40, 400], ids=["fewer-rows-than-values", "more"])
@pytest.mark.parametrize("n_components", [1, 5, 8])
def test_axes_variances_and_reconstruction_equal_those_of_sklearn(n_components, count):
    rows = make_rows(count)
    peer = decomposition.PCA(n_components, svd_solver="full").fit(rows.flatten(1).double().numpy())
    pca = fit_pca(rows, n_components)
    cosine = (pca.components.double().numpy() * peer.components_).sum(1)
    np.testing.assert_allclose(np.abs(cosine), 1.0, atol=1e-4)
    # scikit-learn divides by N - 1.
    np.testing.assert_allclose(pca.scale, np.sqrt(peer.explained_variance_ * (count - 1) / count), rtol=1e-4)
    np.testing.assert_allclose(pca.mean, peer.mean_, atol=1e-6)
    expected = peer.inverse_transform(peer.transform(rows.flatten(1).double().numpy())).reshape(rows.shape)
    torch.testing.assert_close(pca.reconstruct(rows), torch.from_numpy(expected).float(), atol=PEER[1], rtol=PEER[2])


@pytest.mark.parametrize("count", [40, 400])
def test_axes_beyond_the_rank_of_the_data_are_zero(count):
    pca = fit_pca(make_rows(count, rank=3), 10)
    assert pca.rank == 3
    assert pca.components.shape == (10, 60)
    assert pca.components[3:].eq(0).all()
    assert pca.scale[3:].eq(0).all()
    gram = pca.components[:3] @ pca.components[:3].T
    torch.testing.assert_close(gram, torch.eye(3), atol=1e-4, rtol=0)


def test_rows_are_reconstructed_exactly_if_there_are_fewer_than_axes():
    rows = make_rows(count=4, rank=8)
    pca = fit_pca(rows, 16)
    assert pca.rank == 3
    torch.testing.assert_close(pca.reconstruct(rows), rows, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 9], ids=lambda count: f"{count}-rows")
def test_equal_rows_have_a_mean_and_no_axes(count):
    row = make_rows(count=1)
    pca = fit_pca(row.expand(count, *SHAPE), 4)
    assert pca.rank == 0
    assert torch.isfinite(pca.components).all()
    assert torch.equal(pca.mean, row.flatten())
    assert torch.equal(pca.reconstruct(row), row)


def test_rows_that_differ_by_rounding_have_no_axes():
    rows = make_rows(count=1).expand(12, *SHAPE).clone() + 100
    rows[::2] = torch.nextafter(rows[::2], torch.tensor(torch.inf))
    assert fit_pca(rows, 4).rank == 0


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_batches_and_one_tensor_give_equal_results(batch):
    rows = make_rows()
    whole, parts = fit_pca(rows, 5), fit_pca(iter(rows.split(batch)), 5)
    assert torch.equal(whole.components, parts.components)
    assert torch.equal(whole.scale, parts.scale)


def test_the_sample_of_a_stream_is_uniform_and_repeatable_for_a_seed():
    rows = torch.arange(500.0).reshape(500, 1, 1, 1).expand(500, 1, 2, 2)
    fits = [fit_pca(rows.split(32), 1, max_rows=100, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(fits[0].mean, fits[1].mean)
    assert not torch.equal(fits[0].mean, fits[2].mean)
    # A sample of 100 of 0..499 has a mean of 249.5 with a standard error of 13, and a standard deviation of 144.
    assert abs(float(fits[0].mean[0]) - 249.5) < 45
    assert float(fits[0].scale[0]) / 2 == pytest.approx(144, rel=0.2)


def test_a_sample_of_a_tensor_spans_the_same_subspace():
    rows = make_rows(count=300, rank=4)
    pca = fit_pca(rows, 4, max_rows=60)
    torch.testing.assert_close(pca.reconstruct(rows), rows, atol=1e-3, rtol=0)


def test_the_input_is_not_changed():
    rows = make_rows()
    before = rows.clone()
    fit_pca(rows, 3, silence=-0.5)
    assert torch.equal(rows, before)


def test_the_gate_halves_the_frequency_at_its_width_and_keeps_the_magnitude():
    rows = torch.tensor([-0.5, -0.4, 9.5]).reshape(1, 1, 1, 3).repeat(1, 2, 1, 1)
    rows[:, 1] = 2.0
    gated = gate_frequency(rows, silence=-0.5, width=0.1)
    assert torch.equal(gated[:, 0], rows[:, 0])
    torch.testing.assert_close(gated[0, 1, 0], torch.tensor([0.0, 1.0, 2 / 1.01]), atol=1e-4, rtol=0)
    assert torch.equal(gate_frequency(rows, 0.0, 0.0), rows)
    assert torch.equal(gate_frequency(rows[:, :1], -0.5, 0.1), rows[:, :1])


def test_a_fit_with_silence_is_the_pca_of_gated_rows():
    rows = make_rows()
    gated, plain = fit_pca(rows, 5, silence=-1.0), fit_pca(gate_frequency(rows, -1.0), 5)
    assert torch.equal(gated.components, plain.components)
    assert not torch.equal(gated.components, fit_pca(rows, 5).components)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (make_rows(), {"n_components": 0}, "n_components=0 must be at least 1"),
        (make_rows(), {"max_rows": 0}, "max_rows=0 must be at least 1"),
        (make_rows(count=0), {}, "at least one row"),
        ([], {}, "at least one row"),
        (make_rows() * math.inf, {}, "rows must be finite"),
    ],
    ids=["no-axes", "no-sample", "empty-tensor", "empty-stream", "infinite"],
)
def test_invalid_arguments_are_named(rows, options, message):
    with pytest.raises(ValueError, match=message):
        fit_pca(rows, **({"n_components": 2} | options))
