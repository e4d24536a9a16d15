"""Bounds against closed forms, their conditions, and the bias of plugging in a covariance."""

import math

import numpy as np
import pytest
import torch

from miue.errors import InputError
from miue.mi import mi_ksg
from miue.theory import covariance_bound, entropy, noise_bound, within_class_spectrum

LABELS = torch.arange(600) % 3


def features_with(spectra, per_class=200, seed=0):
    """Classes whose empirical covariances have exactly these eigenvalues, in random axes."""
    g = torch.Generator().manual_seed(seed)
    d = len(spectra[0])
    z = torch.empty(per_class * len(spectra), d, dtype=torch.float64)
    for y, spectrum in enumerate(spectra):
        raw = torch.randn(per_class, d, generator=g, dtype=torch.float64)
        white = torch.linalg.qr(raw - raw.mean(0)).Q * math.sqrt(per_class - 1)  # unit empirical covariance
        axes = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
        z[y :: len(spectra)] = white * torch.tensor(spectrum, dtype=torch.float64).sqrt() @ axes + y
    return z


SPECTRA = [[4.0, 1.0, 0.25], [1.0, 1.0, 1.0], [9.0, 0.0, 0.01]]


def test_entropy():
    assert entropy(LABELS) == pytest.approx(math.log(3))
    assert entropy(np.zeros(5)) == 0
    assert entropy(torch.tensor([0, 0, 0, 7])) == pytest.approx(math.log(4) - 0.75 * math.log(3))


@pytest.mark.parametrize("noise_std", [0.1, 1.0, 30.0])
def test_noise_bound_closed_form(noise_std):
    logs = [sum(math.log1p(v / noise_std**2) for v in spectrum) for spectrum in SPECTRA]
    expected = math.log(3) + 0.5 * sum(logs) / 3
    z = features_with(SPECTRA)
    assert noise_bound(z, LABELS, noise_std, covariance="empirical") == pytest.approx(expected, rel=1e-9)
    assert noise_bound(5 * z, LABELS, 5 * noise_std, covariance="empirical") == pytest.approx(expected, rel=1e-9)


def test_noise_bound_is_tight_for_one_normal_class_and_holds_for_two():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(5000)
    noisy = z + 0.5 * rng.standard_normal(5000)
    bound = noise_bound(z, np.zeros(5000), 0.5)
    assert bound == pytest.approx(0.5 * math.log(5), abs=0.03)
    assert mi_ksg(z, noisy).value == pytest.approx(bound, abs=0.05)

    labels = np.arange(5000) % 2
    split = z * 0.1 + labels
    noisy = split + 0.5 * rng.standard_normal(5000)
    assert mi_ksg(split, noisy).value < noise_bound(split, labels, 0.5)


def test_plug_in_bias_and_shrinkage():
    """100 samples per class in 128 dimensions: the empirical bound is far too low, the shrunk one is not."""
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(500, 128, generator=g), torch.arange(500) % 5
    truth = math.log(5) + 64 * math.log1p(1 / 0.1)
    assert 0.65 < noise_bound(z, labels, math.sqrt(0.1), covariance="empirical") / truth < 0.8
    assert noise_bound(z, labels, math.sqrt(0.1)) == pytest.approx(truth, rel=0.02)


def test_per_direction_is_the_bound_of_the_projection():
    z = features_with(SPECTRA)
    phi = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), dim=0)
    expected = math.log(3) + 0.5 * np.mean([math.log1p(float((z[y::3] @ phi).var()) / 0.04) for y in range(3)])
    assert noise_bound(z @ phi, LABELS, 0.2, covariance="empirical") == pytest.approx(expected)


def test_covariance_bound_needs_the_minus():
    """One class, Z' = Z + 0.01 N: I = 4.605; with the sign turned round the "bound" is -1.767 (theory T2)."""
    z = features_with([[1.0 + 1e-4]], per_class=600)
    conditional = 0.5 * math.log(2 * math.pi * math.e * 1e-4)
    one_class = torch.zeros(600)
    assert covariance_bound(z, one_class, conditional, covariance="empirical") == pytest.approx(4.6052, abs=1e-4)
    assert covariance_bound(z, one_class, -conditional, covariance="empirical") == pytest.approx(-1.767, abs=1e-3)


def test_covariance_bound_does_not_move_with_the_scale():
    z = features_with([[4.0, 1.0, 0.25]], per_class=300)
    bound = covariance_bound(z, torch.zeros(300), 1.0)
    assert covariance_bound(0.01 * z, torch.zeros(300), 1.0 + 3 * math.log(0.01)) == pytest.approx(bound)


def test_within_class_spectrum():
    z = features_with([[4.0, 1.0], [4.0, 1.0]], per_class=50)
    labels = torch.arange(100) % 2
    spectrum = within_class_spectrum(z.float(), labels.numpy())
    assert spectrum.shape == (2,) and spectrum.dtype == torch.float64
    residual = torch.cat([z[labels == y] - z[labels == y].mean(0) for y in (0, 1)])
    expected = torch.linalg.svdvals(residual) ** 2 / 100
    torch.testing.assert_close(spectrum, expected, rtol=1e-4, atol=0.0)
    assert spectrum[0] > spectrum[1]
    moved = within_class_spectrum(z + 100 * labels[:, None], labels)
    torch.testing.assert_close(moved, spectrum, rtol=1e-4, atol=0.0)


Z = features_with(SPECTRA)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_bound(Z, LABELS, 0.0), "noise_std: 0.0 must be"),
        (lambda: noise_bound(Z, LABELS, math.nan), "noise_std: nan must be"),
        (lambda: noise_bound(Z, LABELS[:-1], 1.0), "labels: 599 labels for 600 samples"),
        (lambda: noise_bound(Z / 0, LABELS, 1.0), "features: some values are NaN or infinite"),
        (lambda: noise_bound(Z[None], LABELS, 1.0), r"features: shape \(1, 600, 3\)"),
        (lambda: noise_bound(Z[:4], torch.tensor([0, 0, 0, 1]), 1.0), "labels: a class has one sample only"),
        (lambda: noise_bound(Z, LABELS, 1.0, covariance="oas"), "covariance: 'oas' does not exist"),
        (lambda: covariance_bound(Z, LABELS, 1.0, covariance="empirical"), "covariance of a class is singular"),
        (lambda: covariance_bound(Z, LABELS, -math.inf), "conditional_entropy: -inf is not finite"),
        (lambda: entropy(torch.zeros(3, 2)), r"labels: shape \(3, 2\)"),
        (lambda: entropy(torch.zeros(0)), r"labels: shape \(0,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
