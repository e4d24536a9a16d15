"""Estimates for labels and for numbers of which some come with a probability of their own."""

import json
import math

import numpy as np
import pytest

from miue.errors import DataWarning, InputError
from miue.mi import discrete, mi_discrete, mi_ksg, mi_mixed, normalised_mi
from miue.mi.statistics import entropy

RNG = np.random.default_rng(0)
U = RNG.integers(0, 4, 600)
V = np.where(RNG.random(600) < 0.7, U, RNG.integers(0, 4, 600))


def test_by_hand():
    u, v = ["a", "a", "b", "b"], [True, True, True, False]
    plug_in = math.log(2) - 0.75 * (math.log(3) - 2 / 3 * math.log(2))  # H(U) - H(U|V)
    assert mi_discrete(u, v, correction="none").value == pytest.approx(plug_in)
    assert mi_discrete(u, v).value == pytest.approx(plug_in)  # three pairs, two and two labels: no correction
    of_v = math.log(4) - 0.75 * math.log(3)
    expected = {
        "min": of_v,
        "max": math.log(2),
        "mean": (of_v + math.log(2)) / 2,
        "sqrt": math.sqrt(of_v * math.log(2)),
    }
    for by, mean in expected.items():
        assert normalised_mi(u, v, by) == pytest.approx(plug_in / mean)


def test_the_correction_takes_most_of_the_bias_away():
    pairs = RNG.integers(0, 10, (50, 2, 500))
    plain, corrected = (
        np.mean([mi_discrete(*pair, correction=c).value for pair in pairs]) for c in ("none", "miller-madow")
    )
    assert plain == pytest.approx(81 / 1000, rel=0.1) and abs(corrected) < 0.01


@pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")
@pytest.mark.parametrize("n", [4, 20, 600])
def test_no_value_exceeds_an_entropy(n):
    u, v = U[:n], V[:n]
    for a, b in ((u, v), (u, u), (u, -u), (u, np.arange(n)), (np.arange(n), np.arange(n)), (u, u // 2)):
        ceiling = min(entropy(a), entropy(b))
        for correction in ("none", "miller-madow"):
            assert mi_discrete(a, b, correction=correction).value <= ceiling
            for by in ("min", "max", "mean", "sqrt"):
                assert normalised_mi(a, b, by, correction=correction) <= 1 + 1e-12


def test_the_names_of_labels_do_not_matter():
    value = mi_discrete(U, V)
    named = mi_discrete(np.array(["x", "yy", "z", "w"])[U], list(V.astype(float)))
    assert named.value == pytest.approx(value.value)
    np.testing.assert_allclose(named.per_sample, value.per_sample)
    record = json.loads(json.dumps(value.record()))
    assert record["estimator"] == "discrete" and record["settings"]["labels_u"] == 4
    assert value.stderr_kind == "samples" and 0.01 < value.stderr < 0.1


def test_mixed_is_right_where_ksg_is_not_meant():
    """Gao et al. 2017, section 5: X uniform on 0..m-1 and Y uniform on [X, X + 2]; then zeros beside numbers."""
    m, n = 5, 3000
    x = RNG.integers(0, m, n)
    y = x + RNG.uniform(0, 2, n)
    assert mi_mixed(x, y).value == pytest.approx(math.log(m) - (m - 1) * math.log(2) / m, abs=0.03)
    # With probability 0.4 both are -9, else two independent normal numbers: they share which of both it is.
    atom = RNG.random(n) < 0.4
    both = np.where(atom, -9, RNG.standard_normal((2, n)))
    assert mi_mixed(*both).value == pytest.approx(entropy(atom), abs=0.03)
    assert abs(mi_mixed(*RNG.integers(0, 2, (2, n))).value) < 0.01
    r = RNG.standard_normal((2, n))
    continuous = 0.8 * r[0] + 0.6 * r[1]
    assert mi_mixed(r[0], continuous).value == pytest.approx(mi_ksg(r[0], continuous).value, abs=1e-3)


def test_mixed_reads_an_atom_within_a_continuous_part_low():
    """Half of the pairs are (0, 0), the others normal with r = 0.8: log 2 + 0.51 / 2, read as the docstring says."""
    rng, found = np.random.default_rng(0), []
    for _ in range(5):
        x = rng.standard_normal(2000)
        pair = np.stack([x, 0.8 * x + 0.6 * rng.standard_normal(2000)])
        found.append(mi_mixed(*np.where(rng.random(2000) < 0.5, 0, pair)).value)
    truth = math.log(2) - 0.25 * math.log(1 - 0.64)
    assert truth == pytest.approx(0.949, abs=1e-3) and np.mean(found) == pytest.approx(0.764, abs=0.04)


def test_neighbours_of_what_repeats_are_not_searched_for(monkeypatch):
    """Among many copies of a point a tree has to look at each of them: quadratic."""
    searched = []
    monkeypatch.setattr(
        discrete, "kth_distance", lambda tree, points, k: searched.append(len(points)) or np.ones(len(points))
    )
    rest = np.arange(7.0)
    mi_mixed(np.append(U, 10 + rest), np.append(V, rest - 10))
    assert searched == [7]


def test_numbers_in_the_place_of_labels_are_told():
    with pytest.warns(DataWarning, match="u, v: 600 of 600 pairs of labels occur once; .* mi_ksg") as told:
        mi_discrete(RNG.random(600), RNG.random(600))
    with pytest.warns(DataWarning, match="occur once") as told_too:
        normalised_mi(RNG.random(600), U)
    assert {w.filename for w in [*told, *told_too]} == {__file__}


def test_mixed_plug_in_of_two_discrete_variables():
    assert mi_mixed(U, V).value == pytest.approx(mi_discrete(U, V, correction="none").value)
    rows = mi_mixed(np.stack([U, V]), np.stack([V, V]))
    assert rows.per_slice == pytest.approx([mi_mixed(U, V).value, entropy(V)]) and rows.stderr_kind == "slices"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mi_discrete(U, V[:-1]), "u, v: 600 and 599 labels"),
        (lambda: mi_discrete(U, V, correction="full"), "correction: 'full' does not exist; choose one of miller-madow"),
        (lambda: normalised_mi(U, V, "median"), "by: 'median' does not exist; choose one of min, max, mean, sqrt"),
        (lambda: normalised_mi(U * 0, V), "u, v: entropies 0 and 1.38.*; there is no share of nothing"),
        (lambda: mi_mixed(U, V, k=0), "k: 0; it must be a whole number, 1 or above"),
        (lambda: mi_mixed(U[:5], V[:5]), "x: 5 samples are too few"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
