"""Every public function takes every kind of array, and the same numbers give the same value."""

from functools import cache, partial
from inspect import isfunction

import numpy as np
import pandas as pd
import pytest
import torch

from miue import mi
from miue.errors import InputError
from miue.mi import acceptance, statistics, tasks
from miue.mi.training import Neural

N = 200
RNG = np.random.default_rng(0)
# Eighths of whole numbers: all kinds below hold them exactly.
A, B = RNG.permuted(np.tile(np.arange(N) - N // 2, (2, 4, 1)), axis=2).transpose(0, 2, 1) / 8
CODES = np.arange(N) % 4

KINDS = {
    "tensor": torch.tensor,
    "tensor with gradient": lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True),
    "bfloat16": lambda v: torch.tensor(v).to(torch.bfloat16),
    "float16": lambda v: v.astype(np.float16),
    "negative strides": lambda v: np.ascontiguousarray(v[::-1])[::-1],
    "every other": lambda v: np.repeat(v, 2, axis=0)[::2],
    "big-endian": lambda v: v.astype(">f8"),
    "read-only": lambda v: np.broadcast_to(v, v.shape),
    "pandas": lambda v: pd.Series(v) if v.ndim == 1 else pd.DataFrame(v),
    "slice of pandas": lambda v: (pd.Series(v[::-1]) if v.ndim == 1 else pd.DataFrame(v[::-1]))[::-1],
    "nullable": lambda v: (pd.Series(v) if v.ndim == 1 else pd.DataFrame(v)).astype("Float64"),
    "masked": lambda v: np.ma.array(v, mask=np.zeros(v.shape, dtype=bool)),
    "objects": lambda v: v.astype(object),
    "list": lambda v: v.tolist(),
    "tuple of tensors": lambda v: tuple(torch.tensor(v)),
}
LABELS = {
    "pandas": lambda v: pd.Series(np.array(["a", "b", "c", "d"])[v]).astype("category"),
    "nullable": lambda v: pd.array(v, dtype="Int64"),
    "big-endian": lambda v: v.astype(">u2"),
    "list": lambda v: [f"class {label}" for label in v],
    "objects": lambda v: np.array(["a", "b", "c", "d"])[v].astype(object),
}

PAIRS = {
    "histogram": mi.mi_histogram,
    "kde": mi.mi_kde,
    "ksg": mi.mi_ksg,
    "mixed": mi.mi_mixed,
    "neural": partial(mi.mi_neural, steps=2, hidden=4),
    "rank_correlation": lambda x, y: statistics.rank_correlation(x, y, draws=10).rho,
}
MATRICES = {
    "ksg_joint": mi.mi_ksg_joint,
    "neural_joint": partial(mi.mi_neural_joint, steps=2, hidden=4),
    "sliced": partial(mi.sliced_mi, n_slices=2),
    "null": partial(mi.null, n_slices=2),
    "ceiling": lambda x, y: mi.ceiling(x, n_slices=2),
    "max_sliced": lambda x, y: mi.max_sliced_mi(x, y, steps=2, restarts=1).mi,
    "shared_critic": lambda x, y: mi.shared_critic_mi(x, y, steps=2, n_slices=2),
    "linear_cka": statistics.linear_cka,
    "participation_ratio": lambda x, y: statistics.participation_ratio(x),
}
WITH_LABELS = {
    "ross": lambda x, labels: mi.mi_ross(statistics.as_finite("x", x)[:, 0], labels),
    "sliced ross": lambda x, labels: mi.sliced_mi(x, labels, "ross", n_slices=2),
    "conditional": lambda x, labels: mi.conditional_mi(x, x, labels, n_slices=2),
    "null within": lambda x, labels: mi.null(x, B, within=labels, n_slices=2),
    "controls": lambda x, labels: mi.with_controls(x, B, labels, n_slices=2).within_class,
    "shuffled": lambda x, labels: float(mi.shuffled(N, labels)[0]),
    "discrete": lambda x, labels: mi.mi_discrete(labels, CODES % 2),
    "normalised": lambda x, labels: mi.normalised_mi(CODES % 2, labels),
    "entropy": lambda x, labels: statistics.entropy(labels),
    "label_information": lambda x, labels: statistics.label_information(labels, CODES % 2),
    "disagreement": lambda x, labels: statistics.prediction_disagreement(labels, labels),
    "spectrum": lambda x, labels: float(statistics.within_class_spectrum(x, labels)[0]),
    "class_covariances": lambda x, labels: float(sum(s.sum() for _, s in statistics.class_covariances(x, labels))),
}
pytestmark = pytest.mark.filterwarnings("ignore::miue.errors.DataWarning")


def number(found):
    return found.value if isinstance(found, mi.Estimate) else found


@cache
def expected(table, name):
    arguments = {"pairs": (A[:, 0], B[:, 0]), "matrices": (A, B), "labels": (A, CODES)}[table]
    return number({"pairs": PAIRS, "matrices": MATRICES, "labels": WITH_LABELS}[table][name](*arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array_is_read_alike(kind):
    of_kind = KINDS[kind]
    for name, function in PAIRS.items():
        found = number(function(of_kind(A[:, 0]), of_kind(B[:, 0])))
        assert found == pytest.approx(expected("pairs", name), abs=1e-9), name
    for name, function in MATRICES.items():
        found = number(function(of_kind(A), of_kind(B)))
        assert found == pytest.approx(expected("matrices", name), abs=1e-9), name
    labels = LABELS.get(kind, of_kind)
    for name, function in WITH_LABELS.items():
        found = number(function(of_kind(A), labels(CODES)))
        assert found == pytest.approx(expected("labels", name), abs=1e-9), name


def test_every_public_function_stands_in_a_table():
    tables = " ".join([*PAIRS, *MATRICES, *WITH_LABELS])
    public = {name.removeprefix("mi_").split("_mi")[0] for name in mi.__all__ if isfunction(getattr(mi, name))}
    without_samples = {"default_bins", "draw_directions"}
    assert {name for name in public - without_samples if name.removeprefix("with_") not in tables} == set()


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, np.ma.masked])
def test_what_is_missing_is_refused_by_name(missing):
    x, labels = A.astype(object), CODES.astype(object)
    if missing is np.ma.masked:
        x, labels = (np.ma.array(v, mask=np.arange(N) == 5) for v in (A[:, 0], CODES))
        x = np.ma.stack([x] * 4, axis=1)
    else:
        x[5, 0] = labels[5] = missing
    for function in PAIRS.values():
        with pytest.raises(InputError, match="^x: "):
            function(x[:, 0], B[:, 0])
    for function in MATRICES.values():
        with pytest.raises(InputError, match="^(x|features): "):
            function(x, B)
    for function in WITH_LABELS.values():
        with pytest.raises(InputError, match="^(labels|y|u|v): "):
            function(A, labels)


@pytest.mark.parametrize("value", [3.0, np.float64(2), "4", None, True, -1])
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("k", lambda v: mi.mi_ksg(A[:, 0], B[:, 0], k=v)),
        ("k", lambda v: mi.mi_mixed(A[:, 0], B[:, 0], k=v)),
        ("k", lambda v: mi.mi_ross(A[:, 0], CODES, k=v)),
        ("variant", lambda v: mi.mi_ksg(A[:, 0], B[:, 0], variant=v)),
        ("max_bytes", lambda v: mi.mi_ksg(A[:, 0], B[:, 0], search="brute", max_bytes=v)),
        ("max_bytes", lambda v: mi.mi_kde(A[:, 0], B[:, 0], max_bytes=v)),
        ("max_bytes", lambda v: mi.mi_neural(A[:, 0], B[:, 0], max_bytes=v)),
        ("max_bytes", lambda v: mi.sliced_mi(A, B, max_bytes=v)),
        ("bins", lambda v: mi.mi_histogram(A[:, 0], B[:, 0], bins="" if v is None else v)),
        ("n_slices", lambda v: mi.sliced_mi(A, B, n_slices=v)),
        ("n_slices", lambda v: mi.draw_directions(4, 4, v)),
        ("k_dim", lambda v: mi.sliced_mi(A, B, n_slices=2, k_dim=v)),
        ("k_dim", lambda v: mi.max_sliced_mi(A, B, k_dim=v)),
        ("restarts", lambda v: mi.max_sliced_mi(A, B, restarts=v)),
        ("steps", lambda v: mi.max_sliced_mi(A, B, steps=v)),
        ("n", lambda v: mi.shuffled(v)),
        ("n", lambda v: tasks.bivariate_normal(0.5).sample(v)),
        ("d", lambda v: tasks.multivariate_normal(v, 1.0)),
        ("classes", lambda v: tasks.gaussian_mixture(0.1, v)),
        ("repeats", lambda v: acceptance.check("ksg", repeats=v)),
        ("draws", lambda v: statistics.rank_correlation(A[:, 0], B[:, 0], draws=v)),
    ],
)
def test_whole_numbers_are_whole(argument, call, value):
    with pytest.raises(InputError, match=f"^{argument}: .*; it must be a whole number, [0-9] or above"):
        call(value)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
@pytest.mark.parametrize(
    "call",
    [
        lambda seed: mi.mi_histogram(A[:, 0], B[:, 0], seed=seed),
        lambda seed: mi.mi_ross(A[:, 0], CODES, seed=seed),
        lambda seed: mi.mi_neural(A[:, 0], B[:, 0], seed=seed),
        lambda seed: mi.sliced_mi(A, B, n_slices=2, seed=seed),
        lambda seed: mi.conditional_mi(A, B, CODES, n_slices=2, seed=seed),
        lambda seed: mi.max_sliced_mi(A, B, seed=seed),
        lambda seed: mi.shuffled(5, seed=seed),
        lambda seed: mi.draw_directions(4, 4, 2, seed=seed),
        lambda seed: tasks.bivariate_normal(0.5).sample(9, seed),
        lambda seed: tasks.rotated(tasks.multivariate_normal(2, 1.0), seed),
        lambda seed: tasks.mixture_classes(0.1, seed=seed),
        lambda seed: acceptance.check("ksg", seed=seed),
        lambda seed: statistics.rank_correlation(A[:, 0], B[:, 0], seed=seed),
        lambda seed: Neural().fit(torch.tensor(A)[None], torch.tensor(B)[None], seed=seed),
    ],
)
def test_seeds_are_checked(call, seed):
    with pytest.raises(InputError, match="^seed: .*; it must be a whole number, 0 or above"):
        call(seed)


def test_a_seed_of_any_size_and_a_stream_for_each_role():
    large = mi.sliced_mi(A, B, n_slices=2, seed=2**64)
    assert large.settings["seed"] == 2**64 and large.value != mi.sliced_mi(A, B, n_slices=2, seed=2**64 + 1).value
    # Directions, shuffle and noise of one seed have nothing to do with torch's own stream of that seed.
    theta, _ = mi.draw_directions(4, 4, 3, seed=7)
    plain = torch.randn(3, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    assert not torch.allclose(theta, torch.nn.functional.normalize(plain))
    assert mi.shuffled(50, seed=7).tolist() != torch.randperm(50, generator=torch.Generator().manual_seed(7)).tolist()
