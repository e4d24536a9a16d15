"""Statistics of features and predictions against closed forms and invariances."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from miue import seeds
from miue.errors import InputError
from miue.mi.statistics import (
    class_covariances,
    entropy,
    label_information,
    linear_cka,
    participation_ratio,
    prediction_disagreement,
    rank_correlation,
)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def white(n, d, seed=0):
    """Features whose covariance is exactly a multiple of the identity."""
    raw = normal(n, d, seed)
    return torch.linalg.qr(raw - raw.mean(0)).Q


def rotation(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed)).Q


def test_participation_ratio():
    z = white(100, 5)
    assert participation_ratio(z) == pytest.approx(5)
    assert participation_ratio(1e-9 * z @ rotation(5) + 1) == pytest.approx(5, rel=1e-4)
    spectrum = torch.tensor([4.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    assert participation_ratio((z * spectrum.sqrt()).numpy()) == pytest.approx(49 / 21)
    assert participation_ratio(normal(50, 1) @ torch.ones(1, 4, dtype=torch.float64)) == pytest.approx(1)
    assert participation_ratio(normal(50, 1)[:, 0]) == pytest.approx(1)


def test_participation_ratio_within_classes_does_not_see_the_class_means():
    labels = torch.arange(300) % 3
    z = torch.cat([white(100, 6, seed) for seed in range(3)])
    order = labels.argsort(stable=True).argsort(stable=True)
    moved = z[order] + 50 * normal(3, 6)[labels]
    assert participation_ratio(moved, labels) == pytest.approx(6)
    assert participation_ratio(moved) < 3


def test_participation_ratio_is_low_for_few_samples():
    assert participation_ratio(normal(200, 100)) == pytest.approx(200 * 100 / 300, rel=0.05)


def test_class_covariances():
    labels = torch.tensor([5, 5, 5, 2, 2])
    z = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0, 1], [0, 3]])
    (share_2, sigma_2), (share_5, sigma_5) = class_covariances(z, labels, covariance="empirical")
    assert (share_2, share_5) == (0.4, 0.6)
    torch.testing.assert_close(sigma_2, torch.tensor([[0.0, 0], [0, 2]], dtype=torch.float64))
    torch.testing.assert_close(sigma_5, torch.tensor([[1.0, 0], [0, 0]], dtype=torch.float64))


def test_shrunk_covariances_are_nearer_to_the_truth():
    z, labels = normal(120, 60), torch.arange(120) % 2

    def error(kind):
        return max(float((sigma - torch.eye(60)).norm()) for _, sigma in class_covariances(z, labels, covariance=kind))

    assert error("ledoit_wolf") < 0.3 * error("empirical")


def test_cka_of_the_same_features():
    x = normal(80, 6) @ torch.diag(torch.tensor([3.0, 2, 1, 1, 1, 0.1], dtype=torch.float64))
    assert linear_cka(x, x) == pytest.approx(1) and linear_cka(x, x) <= 1
    assert linear_cka(x, -7 * x @ rotation(6) + 2) == pytest.approx(1)
    assert linear_cka(x.float(), (1e-6 * x).numpy()) == pytest.approx(1)
    y = normal(80, 3, seed=1)
    assert linear_cka(x @ rotation(6), 5 * y @ rotation(3)) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))


def test_cka_is_the_alignment_of_centred_gram_matrices():
    """The other way to write it, over pairs of samples (Kornblith et al., 2019)."""
    x, y = normal(40, 5), normal(40, 5)[:, :3].square() + 0.3 * normal(40, 3, seed=2)
    centre = torch.eye(40) - torch.ones(40, 40) / 40
    k, m = (centre.double() @ z @ z.T @ centre.double() for z in (x, y))
    assert linear_cka(x, y) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())))
    assert linear_cka(x[:, 0], y[:, 0]) == pytest.approx(
        float(torch.corrcoef(torch.stack([x[:, 0], y[:, 0]]))[0, 1] ** 2)
    )


def test_cka_of_independent_features_needs_many_samples():
    assert linear_cka(normal(5000, 10), normal(5000, 10, seed=1)) < 0.01
    assert linear_cka(normal(20, 200), normal(20, 200, seed=1)) > 0.5


def test_disagreement():
    u, v = torch.tensor([0, 1, 2, 2]), np.array([0, 2, 2, 1])
    assert prediction_disagreement(u, v) == 0.5
    assert prediction_disagreement(u, u) == 0


def test_label_information():
    u = torch.arange(60) % 6
    assert label_information(u, u) == pytest.approx(math.log(6))
    assert label_information(u, (u + 1) % 6) == pytest.approx(math.log(6))
    assert label_information(u % 2, u % 3) == pytest.approx(0, abs=1e-12)
    assert label_information(u, u % 2) == pytest.approx(math.log(2)) == pytest.approx(label_information(u % 2, u))
    rng = np.random.default_rng(0)
    bias = np.mean([label_information(rng.integers(0, 10, 500), rng.integers(0, 10, 500)) for _ in range(50)])
    assert bias == pytest.approx(81 / 1000, rel=0.1)


Z, LABELS = normal(12, 3), torch.arange(12) % 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy(torch.zeros(3, 2)), r"labels: shape \(3, 2\)"),
        (lambda: entropy(torch.zeros(0)), r"labels: shape \(0,\)"),
        (lambda: entropy(np.array([0.0, np.nan])), "labels: some labels are NaN"),
        (lambda: label_information(LABELS, LABELS[:5]), "u, v: 12 and 5 labels"),
        (lambda: prediction_disagreement(LABELS, LABELS[:5]), "u, v: 12 and 5 labels"),
        (lambda: prediction_disagreement(LABELS, LABELS[None]), r"v: shape \(1, 12\)"),
        (lambda: prediction_disagreement(LABELS / 0, LABELS), "u: some labels are NaN or infinite"),
        (lambda: participation_ratio(torch.full((9, 4), 0.1)), "features: no variance, so"),
        (lambda: participation_ratio(Z[:1]), "features: no variance, so it is spread over no direction; 1 samples"),
        (lambda: participation_ratio(Z[:3], LABELS[:3]), "features: no variance within the classes"),
        (lambda: participation_ratio(Z / 0), "features: 36 values are NaN or infinite"),
        (lambda: participation_ratio(Z, LABELS[:5]), "labels: 5 labels for 12 samples"),
        (lambda: linear_cka(Z, Z[:5]), "x, y: 12 and 5 rows"),
        (lambda: linear_cka(Z, torch.full((12, 2), 0.3)), "y: all 2 features are constant over 12 samples"),
        (lambda: linear_cka(Z[:1], Z[:1]), "x: all 3 features are constant over 1 samples"),
        (lambda: linear_cka(Z[None], Z), r"x: shape \(1, 12, 3\)"),
        (lambda: linear_cka(Z, Z * math.nan), "y: 36 values are NaN or infinite"),
        (lambda: class_covariances(Z, LABELS, covariance="oas"), "covariance: 'oas' does not exist"),
        (lambda: class_covariances(Z[:4], LABELS[:4]), "labels: a class has one sample only"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_rank_correlation_is_spearmans_and_its_interval_covers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    assert rank_correlation(x, np.exp(x)).rho == pytest.approx(1.0)
    assert rank_correlation(x, -x).rho == pytest.approx(-1.0)
    few = np.random.default_rng(1).integers(0, 3, (2, 6))
    drawn = torch.randint(6, (50, 6), generator=seeds.stream(0, "subsamples")).numpy()
    varied = [few[:, rows] for rows in drawn if (np.ptp(few[:, rows], axis=1) > 0).all()]
    found = rank_correlation(*few, draws=50)
    expected = np.percentile([stats.spearmanr(*one).statistic for one in varied], [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected)) and len(varied) < 50
    truth, covered = 6 / np.pi * np.arcsin(0.6 / 2), 0  # Spearman's of a normal pair of correlation 0.6
    for seed in range(20):
        pair = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=40)
        found = rank_correlation(pair[:, 0], pair[:, 1], draws=200, seed=seed)
        assert found.low <= found.rho <= found.high
        covered += found.low <= truth <= found.high
    assert covered >= 16
    assert str(rank_correlation([1, 2, 3, 4], [1, 2, 4, 3], draws=50)).startswith("0.80 (")


def test_what_a_third_thing_explains_is_taken_out_of_a_rank_correlation():
    rng = np.random.default_rng(0)
    given = rng.normal(size=400)
    x, y = given + 0.3 * rng.normal(size=(2, 400))
    assert rank_correlation(x, y).rho > 0.8
    found = rank_correlation(x, y, given)
    assert found.low < 0 < found.high and abs(found.rho) < 0.1
    # By the definition: the correlation of what straight lines through the ranks of the third leave.
    ranks = [stats.rankdata(one) for one in (x, y + 0.2 * x, given)]
    left = [one - np.polyval(np.polyfit(ranks[2], one, 1), ranks[2]) for one in ranks[:2]]
    assert rank_correlation(x, y + 0.2 * x, given).rho == pytest.approx(np.corrcoef(*left)[0, 1])
    with pytest.raises(InputError, match="without exception"):
        rank_correlation(x, y, np.exp(x))
    with pytest.raises(InputError, match="x, y, given: shapes"):
        rank_correlation(x, y, given[1:])


def test_rank_correlation_refuses_what_has_no_order():
    with pytest.raises(InputError, match="n of 4 or more"):
        rank_correlation([1, 2, 3], [1, 2, 3])
    with pytest.raises(InputError, match="no order to compare"):
        rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])
