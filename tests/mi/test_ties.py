"""Ties, classes without spread and values of any size: no estimate is lifted above the truth, or sunk, unsaid."""

import math

import numpy as np
import pytest
import torch

from miue.errors import DataWarning, InputError
from miue.mi import mi_histogram, mi_kde, mi_ksg, mi_ksg_joint, mi_mixed, mi_neural, mi_ross, shuffled, sliced_mi

RNG = np.random.default_rng(0)
X = RNG.standard_normal(2000)
Y = 0.8 * X + 0.6 * RNG.standard_normal(2000)
TRUTH = -0.5 * math.log(1 - 0.64)


@pytest.mark.parametrize("search", ["tree", "brute"])
@pytest.mark.parametrize("variant", [1, 2])
def test_copies_of_a_row_count_for_what_they_share(variant, search):
    """29 copies among 3,000 rows share their being copies, h(29/3000) nats, and not the 0.10 of undefined counts."""
    x, y = RNG.standard_normal((2, 3000))
    x[:29], y[:29] = x[0], y[0]
    p = 29 / 3000
    truth = -p * math.log(p) - (1 - p) * math.log1p(-p)
    with pytest.warns(DataWarning, match="29 samples equal another one in x and in y at once; ksg"):
        value = mi_ksg(x, y, variant=variant, search=search).value
    assert abs(value - truth) < 0.03
    assert value == mi_ksg_joint_of_columns(x, y, variant, search)


def mi_ksg_joint_of_columns(x, y, variant, search):
    with pytest.warns(DataWarning):
        return mi_ksg_joint(x[:, None], y[:, None], variant=variant, search=search).value


def test_one_pair_of_equal_points_is_told():
    x, y = X.copy(), Y.copy()
    x[5] = x[9]
    mi_ksg(x, y)  # in one coordinate: the suite turns a DataWarning into an error
    y[5] = y[9]
    with pytest.warns(DataWarning, match="2 samples equal another one in x and in y"):
        mi_ksg(x, y)


@pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")
@pytest.mark.parametrize("spread", [0, 1e-16, 1e-14, 1e-11, 1e-6])
def test_collapsed_classes_share_their_class(spread):
    """Identical rows of a class project to equal numbers, or to ones that differ by rounding: log 10 either way."""
    labels = np.arange(2000) % 10
    centres = RNG.standard_normal((2, 10, 32))
    x, y = (c[labels] + spread * RNG.standard_normal((2000, 32)) for c in centres)
    for value in (
        sliced_mi(x, y, n_slices=8).per_slice,
        sliced_mi(x, x, n_slices=8).per_slice,
        sliced_mi(x, labels, "ross", n_slices=8).per_slice,
    ):
        np.testing.assert_allclose(value, math.log(10), atol=0.1)
    joint = sliced_mi(x, y, n_slices=4, k_dim=2).per_slice
    np.testing.assert_allclose(joint, math.log(10), atol=0.15)


def test_coins_share_at_most_log_2_and_the_right_estimator_is_named():
    coins = RNG.integers(0, 2, (2, 3000))
    with pytest.warns(DataWarning, match="tied; ksg expects continuous variables, and mi_discrete is meant"):
        assert abs(mi_ksg(*coins).value) < 0.02
    with pytest.warns(DataWarning, match="mi_discrete"):
        assert mi_ksg(coins[0], coins[0]).value == pytest.approx(math.log(2), abs=0.02)
    with pytest.warns(DataWarning, match="mi_ross is meant for discrete ones"):
        assert mi_ksg(X, (X > 0)).value == pytest.approx(math.log(2), abs=0.05)
    with pytest.warns(DataWarning, match="mi_mixed is meant for partly discrete ones"):
        mi_ksg(np.maximum(X, 0), Y)
    with pytest.warns(DataWarning, match="mi_discrete"):
        assert abs(mi_ross(coins[0], coins[1]).value) < 0.02


@pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")
def test_slices_that_tie_are_measured_by_the_estimator_that_the_warning_names():
    x = RNG.integers(0, 2, (2000, 1))
    with pytest.warns(DataWarning, match='mi_mixed ."mixed" in sliced_mi. is meant for discrete ones'):
        sliced_mi(x, x, n_slices=4)
    assert sliced_mi(x, x, "mixed", n_slices=4).value == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: mi_ksg(x, x),
        lambda x: mi_ksg_joint(x[:, None], x[:, None]),
        lambda x: mi_neural(x, x, steps=1),
        lambda x: mi_ross(x, x > 0),
        lambda x: mi_kde(x + 1e9 * (x == 0), x, scale="values", bandwidth=1e-3, evaluation="exact"),
        lambda x: sliced_mi(x[:, None], x[:, None], n_slices=2),
    ],
)
def test_a_warning_points_at_the_caller(call):
    with pytest.warns(DataWarning) as told:
        call(np.round(X, 1))
    assert {warning.filename for warning in told} == {__file__}


def test_noise_is_recorded_seeded_and_can_be_switched_off():
    x = np.round(X, 1)
    with pytest.warns(DataWarning):
        first, again, other = (mi_ksg(x, Y, seed=seed) for seed in (3, 3, 4))
    assert first.settings["noise"] == 1e-10 and first.settings["seed"] == 3 and first.settings["scale"] == "values"
    assert first.value == again.value != other.value
    plain = mi_ksg(X, Y, noise=0)
    assert plain.settings["noise"] == 0 and plain.value == pytest.approx(mi_ksg(X, Y).value, abs=1e-9)
    coins = RNG.integers(0, 2, (2, 300))
    for search in ("tree", "brute"):
        with pytest.warns(DataWarning), pytest.raises(InputError, match="noise: 0 leaves 300 points at no distance"):
            mi_ksg(*coins, noise=0, search=search)
    with pytest.warns(DataWarning), pytest.raises(InputError, match="noise: 0 leaves 300 samples at no distance"):
        mi_ross(*coins, noise=0)
    for noise in (-1e-10, math.nan, 1, "small"):
        with pytest.raises(InputError, match="noise: .*choose 0 for none"):
            mi_ksg(X, Y, noise=noise)


@pytest.mark.parametrize("estimator", [mi_histogram, mi_kde, mi_ksg, mi_mixed])
@pytest.mark.parametrize("factor", [1e200, 1e300, 1e-200, 1e-290])
def test_values_of_any_size(estimator, factor):
    value = estimator(X, Y).value
    assert estimator(factor * X, Y).value == pytest.approx(value, abs=1e-6)
    assert estimator(factor * X, Y / factor).value == pytest.approx(value, abs=1e-6)
    columns, other = np.stack([X, Y], axis=1), np.stack([Y, X**2], axis=1)
    plain = sliced_mi(columns, other, n_slices=3).value
    assert sliced_mi(factor * columns, other, n_slices=3).value == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("estimator", [mi_histogram, mi_kde, mi_ksg, mi_mixed])
@pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")  # at 1e12 the digits are so few that values tie
@pytest.mark.parametrize("offset", [1e6, 1e9, 1e12])
def test_an_offset_costs_no_more_than_its_digits(estimator, offset):
    assert abs(estimator(offset + X, Y).value - TRUTH) < 0.06


@pytest.mark.parametrize("rate", [1, 3, 20, 100])
def test_ranks_have_no_tails(rate):
    x, y = np.exp(rate * X), np.exp(rate * Y)
    for estimator, options in ((mi_histogram, {}), (mi_kde, {}), (mi_ksg, {"scale": "scores"})):
        value = estimator(x, y, **options).value
        assert value == pytest.approx(estimator(X, Y, **options).value, abs=1e-9)
        assert abs(value - TRUTH) < 0.06
    joint = mi_ksg_joint(x[:, None], y[:, None], scale="scores")
    assert joint.value == pytest.approx(mi_ksg(x, y, scale="scores").value)
    assert joint.settings["scale"] == "scores"
    labels = Y > 0
    assert mi_ross(x, labels, scale="scores").value == pytest.approx(mi_ross(X, labels, scale="scores").value, abs=1e-9)


@pytest.mark.parametrize("rate", [0.5, 1, 2, 3, 4, 5, 8, 20, 100])
def test_heavy_tails_are_never_read_above_the_truth(rate):
    """One scale holds them, and reads them low, or it does not, and they are refused with the remedy."""
    x, y = np.exp(rate * X), np.exp(rate * Y)
    for estimator in (mi_ksg, mi_mixed):
        try:
            assert -0.02 < estimator(x, y).value < TRUTH + 0.05
        except InputError as error:
            assert rate > 3 and "of slice 0 differ from another by less than 1e-10" in str(error)
            assert 'choose scale="scores"' in str(error)


def test_what_one_scale_cannot_hold_is_refused_by_all_that_compare_distances():
    x = np.exp(20 * X)
    for call in (
        lambda: mi_ksg(x, Y),
        lambda: mi_ksg(Y, x),
        lambda: mi_neural(x, Y, steps=1),
        lambda: mi_mixed(x, Y),
        lambda: mi_ross(x, Y > 0),
        lambda: mi_kde(x, Y, scale="values"),
        lambda: mi_histogram(x, Y, binning="width"),
        lambda: mi_ksg_joint(np.stack([Y, x], axis=1), Y[:, None]),
    ):
        with pytest.raises(InputError, match="differ from another by less than 1e-10 standard"):
            call()
    assert abs(mi_neural(x, Y, steps=60, scale="scores").value - TRUTH) < 0.3


def test_a_shuffle_is_a_permutation_whatever_the_labels():
    kinds = [None, np.arange(200) % 7, (np.arange(200) % 3).astype(str), torch.arange(200) % 2 == 0, list("ab" * 100)]
    for labels in kinds:
        order = shuffled(200, labels, seed=2**70)
        assert sorted(order.tolist()) == list(range(200)) and order.tolist() != list(range(200))
        if labels is not None:
            assert (np.asarray(labels)[order] == np.asarray(labels)).all()
    for labels in (np.where(np.arange(200) < 3, np.nan, 1.0), [None] * 2 + [1] * 198, ["a"] * 199 + [math.nan]):
        with pytest.raises(InputError, match="^labels: "):
            shuffled(200, labels)
