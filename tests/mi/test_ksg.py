"""The counts behind KSG are exact: both searches agree, and the neighbour at the very edge stays outside."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma

from miue.errors import DataWarning
from miue.mi import mi_ksg, mi_ksg_joint, sliced_mi


def sample(kind, n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, n))
    return {
        "weak": (x, 0.3 * x + rng.standard_normal((3, n))),
        "strong": (x, x + 1e-3 * rng.standard_normal((3, n))),
        "identical": (x, x),
        "clusters": (x * 0.01 + np.arange(n) % 7, x[::-1] * 0.01 + np.arange(n) % 7),
        "heavy tails": (np.exp(3 * x), np.exp(3 * x[::-1])),
    }[kind]


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("kind", ["weak", "strong", "identical", "clusters", "heavy tails"])
@pytest.mark.parametrize(("n", "k"), [(1500, 5), (400, 1), (40, 39)])
def test_brute_force_and_search_agree(kind, n, k, variant):
    x, y = sample(kind, n)
    tree = mi_ksg(x, y, k=k, variant=variant, search="tree")
    brute = mi_ksg(x, y, k=k, variant=variant, search="brute", max_bytes=2**20)
    np.testing.assert_allclose(tree.per_slice, brute.per_slice, rtol=0, atol=1e-9)
    np.testing.assert_allclose(tree.per_sample, brute.per_sample, rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [0.1, 0.5])
def test_brute_force_and_search_agree_on_ties(step):
    """On a grid nearly every end point is hit, and many points have k copies, told apart by the noise alone."""
    x, y = (np.round(v / step) * step for v in sample("weak", 600))
    found = []
    for search in ("tree", "brute"):
        with pytest.warns(DataWarning, match=r"\d+% of the samples in a slice are tied"):
            found.append(mi_ksg(x, y, search=search))
    np.testing.assert_allclose(*(estimate.per_slice for estimate in found), rtol=0, atol=1e-9)
    np.testing.assert_allclose(*(estimate.per_sample for estimate in found), rtol=0, atol=1e-9)


def careless_ksg(x, y, k=5):
    """The tempting version: look up v - eps and v + eps, and let the neighbour that defines eps in."""
    n, points = len(x), np.column_stack([x, y])
    eps = cKDTree(points).query(points, k=[k + 1], p=np.inf)[0][:, 0]
    value = digamma(k) + digamma(n)
    for v in (x, y):
        ordered = np.sort(v)
        inside = np.searchsorted(ordered, v + eps, "right") - np.searchsorted(ordered, v - eps, "left")
        value -= digamma(inside).mean()
    return value


@pytest.mark.slow
def test_searchsorted_trap():
    """Identity in 64 dimensions: the truth of T6 is 0.0080, and careless counts lose nearly all of it."""
    d, n, slices = 64, 5000, 256
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = 0.5 * (digamma(d / 2) - digamma((d - 1) / 2))
    estimate = sliced_mi(z, z, n_slices=slices)
    assert abs(estimate.value - truth) <= 3 * estimate.stderr + 0.003

    g = torch.Generator().manual_seed(1)
    theta, phi = torch.nn.functional.normalize(torch.randn(2, 8, d, generator=g, dtype=torch.float64), dim=2)
    x, y = (theta @ z.T).numpy(), (phi @ z.T).numpy()
    careless = np.mean([careless_ksg(*pair) for pair in zip(x, y, strict=True)])
    assert mi_ksg(x, y).value - careless > 0.8 * truth


def test_exact_boundary_by_hand():
    """Five points whose k = 1 neighbourhoods can be counted by hand.

    eps = 1, 1, 2, 3, 3 in x; y repeats x, so n_x = n_y; strictly inside: 0, 0, 0, 0, 0.
    """
    x = np.array([0.0, 1.0, 3.0, 6.0, 9.0])
    expected = digamma(1) + digamma(5) - 2 * digamma(1)
    for search in ("tree", "brute"):
        assert mi_ksg(x, x, k=1, search=search, noise=0).value == pytest.approx(expected, abs=1e-12)


def test_second_variant_by_hand():
    """k = 1: the rectangle of each point holds its neighbour on the edge and no other, so n_x = n_y = 1."""
    x, y = np.array([0.0, 1.0, 5.0, 7.0]), np.array([0.0, 0.5, 9.0, 5.0])
    # Nearest in the max-norm: 0 and 1 are each other's, 2 and 3 too. eps_x = 1, 1, 2, 2 and eps_y = 0.5, 0.5, 4, 4.
    # Just outside: |5 - 0.5| = 4.5 in y for the last point.
    expected = digamma(1) - 1 + digamma(4) - 2 * digamma(1)
    for search in ("tree", "brute"):
        assert mi_ksg(x, y, k=1, variant=2, search=search, noise=0).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variant", [1, 2])
def test_vectors_of_one_entry_are_numbers(variant):
    x, y = sample("weak", 500)
    as_vectors = mi_ksg_joint(x[..., None], y[..., None], variant=variant)
    np.testing.assert_allclose(as_vectors.per_slice, mi_ksg(x, y, variant=variant).per_slice, rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("d", [2, 6])
def test_brute_force_and_search_agree_on_vectors(d, variant):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 400, d))
    y = x[..., :2] + rng.standard_normal((2, 400, 2))
    tree = mi_ksg_joint(x, y, variant=variant, search="tree")
    brute = mi_ksg_joint(x, y, variant=variant, search="brute", max_bytes=2**20)
    np.testing.assert_allclose(tree.per_slice, brute.per_slice, rtol=0, atol=1e-9)
    np.testing.assert_allclose(tree.per_sample, brute.per_sample, rtol=0, atol=1e-9)
    one = mi_ksg_joint(x[0], y[0], variant=variant)
    assert one.value == pytest.approx(tree.per_slice[0], abs=1e-12) and one.stderr_kind == "samples"


def test_result_does_not_depend_on_the_chunk():
    x, y = sample("weak", 500)
    whole, *others = (mi_ksg(x, y, search="brute", max_bytes=b) for b in (2**30, 2**18, 1))
    for other in others:
        np.testing.assert_allclose(other.per_slice, whole.per_slice, rtol=0, atol=1e-12)
        np.testing.assert_allclose(other.per_sample, whole.per_sample, rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu():
    x, y = (torch.from_numpy(v) for v in sample("weak", 2000))
    on_gpu = mi_ksg(x.cuda(), y.cuda())
    assert on_gpu.value == pytest.approx(mi_ksg(x, y).value, abs=1e-9)
    assert on_gpu.stderr == pytest.approx(mi_ksg(x, y).stderr, abs=1e-9)
    assert math.isfinite(on_gpu.value)
