"""Bounds against closed forms, their conditions, and the bias of plugging in a covariance."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from miue.errors import InputError
from miue.mi import mi_ksg, mi_ross
from miue.mi.bounds import (
    covariance_bound,
    entropy,
    fano_bound,
    label_information,
    noise_bound,
    prediction_disagreement,
    sliced_noise_bound,
    within_class_spectrum,
)

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


def parted(lost, spread, s, n, g):
    """Z lies by the centre of class K, Z' by that of Y: K is another class than Y with probability `lost`.

    Within its class Z' varies as Z does, so Z tells all of it but the class. Returns Z' and Y of n samples, the true
    I(Z; Z' + sN) with its Monte Carlo standard error, and the true I(Z;Y): classes lie 100 s.d. apart.
    """
    centres = 100 * torch.eye(3, dtype=torch.float64)
    y = torch.arange(n) % 3
    k = (y + (torch.rand(n, generator=g) < lost) * torch.randint(1, 3, (n,), generator=g)) % 3
    around, noise = torch.randn(2, n, 3, generator=g, dtype=torch.float64)
    noisy = centres[y] + spread * around + s * noise
    # Z shows K and `around`; from these Z' + sN is normal around three centres, of odds 1 - lost, lost/2, lost/2.
    odds = torch.where(torch.arange(3) == k[:, None], 1 - lost, lost / 2).double().log()
    near = -(noisy[:, None] - centres - spread * around[:, None]).square().sum(2) / (2 * s**2)
    far = -(noisy[:, None] - centres).square().sum(2) / (2 * (spread**2 + s**2)) - 1.5 * math.log(1 + spread**2 / s**2)
    ratio = (odds + near).logsumexp(1) - (far - math.log(3)).logsumexp(1)
    told = math.log(3) + (1 - lost) * math.log(1 - lost) + lost * math.log(lost / 2)
    return centres[y] + spread * around, y, float(ratio.mean()), float(ratio.std()) / math.sqrt(n), told


@pytest.mark.parametrize("lost", [0.1, 0.4, 0.66])
@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_class_information_in_the_place_of_the_entropy(lost, spread):
    """The truth meets the bound: Z' determines the class, and Z tells all that Z' shows within it."""
    z_prime, y, truth, error, told = parted(lost, spread, 0.3, 30_000, torch.Generator().manual_seed(0))
    bound = noise_bound(z_prime, y, 0.3, covariance="empirical", class_information=told)
    assert abs(bound - truth) < 4 * error + 0.01  # a hundredth for the covariances
    assert noise_bound(z_prime, y, 0.3, covariance="empirical") - bound == pytest.approx(math.log(3) - told)
    if spread < 0.1 and lost > 0.3:
        assert bound + 4 * error < math.log(3)  # tight classes, and the class lost: under H(Y), where T3 cannot get


def test_class_information_is_held_between_zero_and_the_entropy():
    z, phi = features_with(SPECTRA), unit_directions(5, 3)
    plain, sliced = noise_bound(z, LABELS, 0.2), sliced_noise_bound(z, LABELS, 0.2, directions=phi)
    for given, dropped in ((5.0, 0.0), (0.4, math.log(3) - 0.4), (-0.02, math.log(3))):
        assert plain - noise_bound(z, LABELS, 0.2, class_information=given) == pytest.approx(dropped)
        fell = sliced - sliced_noise_bound(z, LABELS, 0.2, directions=phi, class_information=given)
        torch.testing.assert_close(fell, torch.full((5,), dropped, dtype=torch.float64))
    each = np.array([0.0, 0.1, 0.2, 0.3, 9.0])
    fell = sliced - sliced_noise_bound(z, LABELS, 0.2, directions=phi, class_information=each)
    torch.testing.assert_close(fell, math.log(3) - torch.from_numpy(each.clip(max=math.log(3))))


def test_class_information_of_a_slice_bounds_its_measured_information():
    """Clean clusters, perturbed ones that show another class half of the time: every slice stays under its bound."""
    g = torch.Generator().manual_seed(2)
    labels = torch.arange(3000) % 6
    shown = torch.where(torch.rand(3000, generator=g) < 0.5, labels, torch.randint(0, 6, (3000,), generator=g))
    around = torch.randn(3000, 12, generator=g, dtype=torch.float64)
    centres = 2 * torch.randn(6, 12, generator=g, dtype=torch.float64)
    z, z_prime = centres[shown] + 0.1 * around, centres[labels] + 0.02 * around
    phi, noisy = unit_directions(12, 12), z_prime + 0.2 * torch.randn(3000, 12, generator=g, dtype=torch.float64)
    of_class = mi_ross(phi @ z.T, labels).per_slice
    bound = sliced_noise_bound(z_prime, labels, 0.2, directions=phi, class_information=of_class)
    measured = torch.from_numpy(mi_ksg(phi @ z.T, phi @ noisy.T).per_slice)
    assert (bound - measured).min() > -0.05
    assert bound.max() < entropy(labels) < sliced_noise_bound(z_prime, labels, 0.2, directions=phi).min()


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


def unit_directions(slices, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(slices, d, generator=g, dtype=torch.float64))


def test_each_slice_has_the_bound_of_its_projection():
    z, phi = features_with(SPECTRA), unit_directions(7, 3)
    bounds = sliced_noise_bound(z.float(), LABELS, 0.2, directions=phi)
    assert bounds.shape == (7,) and bounds.dtype == torch.float64
    expected = [noise_bound(z @ p, LABELS, 0.2, covariance="empirical") for p in phi]
    torch.testing.assert_close(bounds, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0.0)
    one = sliced_noise_bound(z[:, 0], LABELS, 0.2, directions=torch.ones(1, 1))
    assert float(one) == pytest.approx(noise_bound(z[:, 0], LABELS, 0.2, covariance="empirical"))


def test_the_bound_holds_in_every_slice_of_a_mixture():
    """Eight clusters in 20 dimensions: over the measured value everywhere, and by little where noise is small."""
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(2000) % 8
    z = 2 * torch.randn(8, 20, generator=g)[labels] + 0.2 * torch.randn(2000, 20, generator=g)
    phi = unit_directions(12, 20)
    for s in (0.02, 0.5):
        noisy = z + s * torch.randn(z.shape, generator=g)
        measured = torch.from_numpy(mi_ksg(phi @ z.T.double(), phi @ noisy.T.double()).per_slice)
        slack = sliced_noise_bound(z, labels, s, directions=phi) - measured
        assert slack.min() > -0.05  # KSG itself scatters by that much
        assert slack.mean() < 1.2


@pytest.mark.parametrize(("classes", "d"), [(2, 0.1), (2, 0.4), (10, 0.001), (10, 0.3), (10, 0.85), (100, 0.9)])
def test_fano_is_met_by_the_symmetric_channel(classes, d):
    """V uniform; U = V with probability 1 - d, else any other class alike: I = log C - h_b(d) - d log(C - 1)."""
    coin = -d * math.log(d) - (1 - d) * math.log1p(-d)
    information = math.log(classes) - coin - d * math.log(classes - 1)
    assert fano_bound(information, classes, math.log(classes)) == pytest.approx(d, rel=1e-6)


def test_fano_bounds_any_pair_of_predictions():
    """On the very same samples the plug-in values obey the inequality exactly, however few samples there are."""
    rng = np.random.default_rng(0)
    bounds = []
    for classes, n in [(2, 30), (4, 50), (10, 40), (10, 2000)]:
        for keep in (0.0, 0.3, 0.9, 1.0):
            v = rng.choice(classes, n, p=rng.dirichlet(np.ones(classes)))
            u = np.where(rng.random(n) < keep, v, rng.choice(classes, n, p=rng.dirichlet(np.ones(classes))))
            bound = fano_bound(label_information(u, v), classes, entropy(v))
            assert bound <= prediction_disagreement(u, v) + 1e-9
            bounds.append(bound)
    assert max(bounds) > 0.3


def test_fano_at_the_ends():
    assert fano_bound(0.0, 10, math.log(10)) == pytest.approx(0.9)
    assert fano_bound(-0.02, 10, math.log(10)) == pytest.approx(0.9)
    assert fano_bound(-0.5, 10, 2.0) == fano_bound(0.0, 10, 2.0) > 0.5
    assert fano_bound(math.log(10), 10, math.log(10)) == 0
    assert fano_bound(7.0, 10, 2.0) == 0
    assert fano_bound(0.0, 2, math.log(2) + 1e-12) == pytest.approx(0.5)
    assert fano_bound(0.0, 10, 0.0) == 0
    values = [fano_bound(mi, 10, 2.2) for mi in np.linspace(0, 2.2, 12)]
    assert (np.diff(values) < 0).all()


Z = features_with(SPECTRA)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_bound(Z, LABELS, 0.0), "noise_std: 0.0 must be"),
        (lambda: noise_bound(Z, LABELS, math.nan), "noise_std: nan must be"),
        (lambda: noise_bound(Z, LABELS[:-1], 1.0), "labels: 599 labels for 600 samples"),
        (lambda: noise_bound(Z / 0, LABELS, 1.0), "features: [0-9]+ values are NaN or infinite"),
        (lambda: noise_bound(Z[None], LABELS, 1.0), r"features: shape \(1, 600, 3\)"),
        (lambda: noise_bound(Z[:4], torch.tensor([0, 0, 0, 1]), 1.0), "labels: a class has one sample only"),
        (lambda: noise_bound(Z, LABELS, 1.0, covariance="oas"), "covariance: 'oas' does not exist"),
        (lambda: covariance_bound(Z, LABELS, 1.0, covariance="empirical"), "covariance of a class is singular"),
        (lambda: covariance_bound(Z, LABELS, -math.inf), "conditional_entropy: -inf must be a finite number"),
        (lambda: sliced_noise_bound(Z, LABELS, -1.0, directions=torch.eye(3)), "noise_std: -1.0 must be"),
        (lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=torch.eye(4)), r"directions: shape \(4, 4\)"),
        (lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=torch.eye(3)[0]), r"directions: shape \(3,\)"),
        (lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=2 * torch.eye(3)), "directions: some have no length"),
        (lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=torch.eye(3) / 0), "directions: 9 values are NaN or"),
        (lambda: sliced_noise_bound(Z, LABELS[:9], 1.0, directions=torch.eye(3)), "labels: 9 labels for 600 samples"),
        (
            lambda: noise_bound(Z, LABELS, 1.0, class_information=math.nan),
            "class_information: 1 values are NaN or infinite",
        ),
        (
            lambda: noise_bound(Z, LABELS, 1.0, class_information=np.ones(2)),
            r"class_information: shape \(2,\); pass one",
        ),
        (
            lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=torch.eye(3), class_information=np.ones(2)),
            r"class_information: shape \(2,\); pass one number or \(3,\)",
        ),
        (lambda: fano_bound(math.nan, 10, 1.0), "mi: nan must be a finite number"),
        (lambda: fano_bound(math.inf, 10, 1.0), "mi: inf must be a finite number"),
        (lambda: fano_bound(1.0, 1, 0.0), "n_classes: 1; it must be a whole number, 2 or above"),
        (lambda: fano_bound(1.0, 2.5, 0.0), "n_classes: 2.5; it must be a whole number, 2 or above"),
        (lambda: fano_bound(1.0, 10, 2.31), r"prediction_entropy: 2.31 nats; 10 classes allow 0 to log C = 2.3026"),
        (lambda: fano_bound(1.0, 10, -0.1), "prediction_entropy: -0.1 nats"),
        (lambda: fano_bound(1.0, 10, math.nan), "prediction_entropy: nan must be a finite number"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("value", ["a", None, True, torch.ones(2), [1.0, [2.0]], {}])
def test_what_is_no_number_is_refused_by_name(value):
    calls = {
        "noise_std": lambda: noise_bound(Z, LABELS, value),
        "conditional_entropy": lambda: covariance_bound(Z, LABELS, value),
        "mi": lambda: fano_bound(value, 10, 1.0),
        "n_classes": lambda: fano_bound(1.0, value, 1.0),
        "prediction_entropy": lambda: fano_bound(1.0, 10, value),
        "directions": lambda: sliced_noise_bound(Z, LABELS, 1.0, directions=value),
    }
    if value is not None:
        calls["class_information"] = lambda: noise_bound(Z, LABELS, 1.0, class_information=value)
    for argument, call in calls.items():
        with pytest.raises(InputError, match=f"^{argument}: "):
            call()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "kind", [torch.tensor, lambda v: v[::-1].copy()[::-1], pd.DataFrame, lambda v: torch.tensor(v, requires_grad=True)]
)
def test_arrays_and_numbers_of_every_kind_are_read_alike(kind):
    phi, part = unit_directions(4, 3).numpy(), np.array([0.1, 0.2, 0.3, 0.4])
    expected = sliced_noise_bound(Z, LABELS, 0.5, directions=phi, class_information=part)
    given = kind(part[:, None])
    given = given[0] if isinstance(given, pd.DataFrame) else given[:, 0]
    found = sliced_noise_bound(
        kind(Z.numpy()), LABELS, torch.tensor(0.5, requires_grad=True), directions=kind(phi), class_information=given
    )
    torch.testing.assert_close(found, expected)
    number = torch.tensor(1.0, requires_grad=True)
    assert fano_bound(number, np.int64(10), np.float64(2)) == fano_bound(1.0, 10, 2.0)
    assert covariance_bound(Z, LABELS, number) == covariance_bound(Z, LABELS, 1.0)
