"""The neural estimators: their formulas, their honesty, and the truth."""

import json
import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from miue.errors import InputError
from miue.mi import sliced_mi
from miue.mi.critic import OBJECTIVES, Critic, bound, bound_and_shares, loss
from miue.mi.neural import mi_neural, mi_neural_joint
from miue.mi.training import Neural

QUICK = {"steps": 60, "hidden": 16, "contrasts": 128}


def normal(r, *shape, seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, *shape))
    return x, r * x + math.sqrt(1 - r * r) * noise


def density_ratio(r, groups, g, seed=0):
    """Score matrices (1, groups, g, g) of the best critic, log p(x, y) / p(x) p(y), for normal pairs."""
    x, y = (v.reshape(groups, g) for v in normal(r, groups * g, seed=seed))
    points = np.stack(np.broadcast_arrays(x[:, :, None], y[:, None, :]), axis=-1)
    joint = multivariate_normal(cov=[[1, r], [r, 1]]).logpdf(points)
    return torch.as_tensor(joint - norm.logpdf(x)[:, :, None] - norm.logpdf(y)[:, None, :])[None]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("r", [0.3, 0.8])
def test_the_best_critic_gives_the_truth(objective, r):
    scores = density_ratio(r, groups=10, g=400)
    value, shares = bound_and_shares(objective, scores, clip=5.0)
    stderr = shares.flatten(1).std(dim=1) / math.sqrt(4000)
    truth = -0.5 * math.log1p(-r * r)
    assert abs(float(value) - truth) < 3 * float(stderr) + 0.01
    assert 0.5 * r < math.sqrt(4000) * float(stderr) < 1.5 * r  # the standard deviation of the log ratio is r


def test_a_wrong_critic_gives_less_or_is_told():
    """NWJ minds a shift, MINE and SMILE do not, and InfoNCE not even a function of x."""
    scores = density_ratio(0.8, groups=10, g=400)
    shifted = {name: float(bound(name, scores + 0.5) - bound(name, scores)) for name in OBJECTIVES}
    assert shifted["nwj"] == pytest.approx(0.5 - math.expm1(0.5), abs=0.05)
    assert abs(shifted["mine"]) < 1e-9 and abs(shifted["infonce"]) < 1e-9 and abs(shifted["smile"]) < 0.05
    of_x = scores + torch.randn(1, 10, 400, 1, dtype=torch.float64)
    assert float(bound("infonce", of_x)) == pytest.approx(float(bound("infonce", scores)))
    assert float(bound("mine", of_x)) < float(bound("mine", scores)) - 0.1


def test_formulas_in_a_group_of_two():
    scores = torch.tensor([[[[1.0, -1.0], [0.5, 2.0]]]], dtype=torch.float64)
    partition = (math.exp(-1) + math.exp(0.5)) / 2
    assert float(bound("mine", scores)) == pytest.approx(1.5 - math.log(partition))
    assert float(bound("nwj", scores)) == pytest.approx(2.5 - partition)
    clipped = (math.exp(-0.2) + math.exp(0.2)) / 2
    assert float(bound("smile", scores, clip=0.2)) == pytest.approx(1.5 - math.log(clipped))
    terms = [1 - math.log((math.e + math.exp(-1)) / 2), 2 - math.log((math.exp(0.5) + math.exp(2)) / 2)]
    assert float(bound("infonce", scores)) == pytest.approx(np.mean(terms))
    lost = np.mean(np.log1p(np.exp([-1, -2]))) + np.mean(np.log1p(np.exp([-1, 0.5])))
    assert float(loss("smile", scores)[0]) == pytest.approx(lost)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shares_are_the_change_of_the_value_with_the_weight_of_a_sample(objective):
    """A sample taken twice: the value moves by its share over m, up to a constant for all samples."""
    scores = density_ratio(0.6, groups=1, g=60)
    value, shares = bound_and_shares(objective, scores, clip=5.0)

    def without(i):
        keep = torch.arange(60) != i
        return float(bound(objective, scores[:, :, keep][:, :, :, keep]))

    left_out = np.array([float(value) - without(i) for i in range(60)]) * 59
    assert np.corrcoef(left_out, shares.flatten())[0, 1] > 0.99
    assert left_out.std() == pytest.approx(float(shares.std()), rel=0.1)


def test_first_mine_gradient_is_the_plain_one():
    scores = density_ratio(0.9, groups=4, g=16).expand(2, -1, -1, -1) * torch.tensor([1.0, 3.0])[:, None, None, None]
    first, again = (scores.clone().requires_grad_() for _ in range(2))
    lost, average = loss("mine", first, None)
    lost.sum().backward()
    (-bound("mine", again)).sum().backward()
    torch.testing.assert_close(first.grad, again.grad)
    # After that, a partition term above the running average weighs more, by their ratio.
    later = scores.clone().requires_grad_()
    lost, moved = loss("mine", later, average - 1, rate=0.25)
    lost.sum().backward()
    expected = torch.log(0.75 * (average - 1).exp() + 0.25 * average.exp())
    torch.testing.assert_close(moved, expected)
    off = ~torch.eye(16, dtype=torch.bool).expand_as(scores)
    torch.testing.assert_close(
        later.grad[off].reshape(2, -1), ((average - moved).exp()[:, None] * again.grad[off].reshape(2, -1))
    )


def test_scores_are_those_of_a_plain_network():
    critic = Critic(2, 3, 2, 8, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
    for value in critic.parameters:
        value.data += 0.1 * torch.randn(value.shape)
    x, y = torch.randn(2, 12, 3), torch.randn(2, 12, 2)
    scores = critic.scores(x, y, 4)
    assert scores.shape == (2, 3, 4, 4)
    state = torch.cat([x[1, 4 + 2], y[1, 4 + 3]])
    (w0, b0), (w1, b1), (w2, b2) = [(w[1], b[1, 0]) for w, b in critic.layers]
    state = torch.relu(torch.nn.functional.silu(state @ w0 + b0) @ w1 + b1) @ w2 + b2
    assert scores[1, 1, 2, 3].item() == pytest.approx(state.item(), rel=1e-5)
    blocks = critic.scores_in_blocks(x, y, 4, max_bytes=1)
    torch.testing.assert_close(blocks, scores.detach().double(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_close_to_the_truth(objective):
    x, y = normal(0.8, 2, 1500)
    estimate = mi_neural(x, y, objective=objective, steps=120, contrasts=150)
    assert abs(estimate.value + 0.5 * math.log(1 - 0.64)) < 0.1
    assert estimate.estimator == objective and estimate.stderr_kind == "slices" and estimate.n_slices == 2
    assert estimate.per_slice.dtype == np.float64
    json.dumps(estimate.record())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_independent_data_read_zero(objective):
    x, y = normal(0.0, 3, 2000)
    assert abs(mi_neural(x, y, objective=objective, **QUICK).value) < 0.05


def test_infonce_never_exceeds_log_of_its_contrasts():
    x, y = normal(math.sqrt(1 - math.exp(-8)), 2, 1000)  # 4 nats
    low = mi_neural(x, y, objective="infonce", steps=120, contrasts=16)
    assert all(low.per_slice > 2.2) and all(low.per_slice <= math.log(16))
    assert low.settings["contrasts"] == 15  # 200 reporting samples in 13 groups
    high = mi_neural(x[0], y[0], objective="infonce", steps=120, contrasts=200)
    assert math.log(16) < high.value <= math.log(200)


def test_held_out_value_is_not_the_training_value():
    """200 samples of pure noise in ten dimensions: learnt by heart, and worth nothing."""
    x, y = (torch.as_tensor(v)[None] for v in normal(0.0, 200, 10))
    fitted = Neural(steps=300, every=50).fit(x, y)
    assert fitted.curves.training[0, -1] > 1
    assert fitted.curves.held_out[0, -1] < 0 and fitted.values[0] < 0.1
    assert fitted.curves.best_step[0] < 300
    assert fitted.curves.training.shape == fitted.curves.held_out.shape == (1, len(fitted.curves.steps)) == (1, 6)


def test_best_state_is_restored_row_by_row():
    x, y = (
        torch.as_tensor(np.concatenate(pair)) for pair in zip(normal(0.0, 1, 400), normal(0.95, 1, 400), strict=True)
    )
    neural = Neural(**QUICK, every=5, learning_rate=0.05)
    x, y = x[:, :, None].float(), y[:, :, None].float()
    generator = torch.Generator().manual_seed(0)
    training, stopping, _ = neural.split(400, generator)
    critic = Critic(2, 1, 1, 16, 2, generator, torch.device("cpu"))
    curves = neural.train_critic(critic, x, y, training, stopping, generator)
    scores = critic.scores(x[:, stopping[:39]], y[:, stopping[:39]], 13)
    best = curves.held_out.max(axis=1)
    np.testing.assert_allclose(bound("mine", scores.detach().double()), best, atol=1e-5)
    assert (curves.best_step == curves.steps[curves.held_out.argmax(axis=1)]).all()
    assert curves.best_step[0] != curves.best_step[1]


def test_rows_do_not_see_each_other():
    """Neither chunking by memory, nor the order of the rows, nor a row's neighbours change a value."""
    x, y = normal(0.7, 3, 300)
    together = mi_neural(x, y, **QUICK).per_slice
    for other in (
        mi_neural(x, y, max_bytes=1, **QUICK).per_slice,
        mi_neural(x[::-1].copy(), y[::-1].copy(), **QUICK).per_slice[::-1],
        np.array([mi_neural(a, b, **QUICK).value for a, b in zip(x, y, strict=True)]),
    ):
        np.testing.assert_array_equal(other, together)


def test_seed_decides_everything():
    x, y = normal(0.7, 300)
    value = mi_neural(x, y, seed=3, **QUICK).value
    assert mi_neural(torch.tensor(x), torch.tensor(y), seed=3, **QUICK).value == value
    torch.manual_seed(99)
    assert mi_neural(x, y, seed=3, **QUICK).value == value
    assert mi_neural(x, y, seed=4, **QUICK).value != value


def test_standard_errors_and_their_names():
    x, y = normal(0.7, 800)
    one = mi_neural(x, y, **QUICK)
    assert one.stderr_kind == "held-out samples" and one.stderr == one.stderr_samples
    assert 0.03 < one.stderr < 0.12  # 160 samples of a log ratio of standard deviation 0.7: 0.055
    assert one.per_sample is None
    rows = mi_neural(*normal(0.7, 4, 800), **QUICK)
    assert rows.stderr_kind == "slices" and 0 < rows.stderr_samples < one.stderr
    sliced = sliced_mi(x[:, None], y[:, None], "mine", n_slices=1, **QUICK)
    assert sliced.stderr_kind == "held-out samples" and sliced.stderr == sliced.stderr_samples


def test_joint_takes_vectors():
    x, y = normal(0.8, 2, 1500, 3)
    y = y[..., :2]
    estimate = mi_neural_joint(x, y, steps=120, contrasts=100)
    assert abs(estimate.value + math.log(1 - 0.64)) < 0.15
    assert mi_neural_joint(x[0], y[0], **QUICK).n_slices == 1
    column = mi_neural_joint(x[0, :, :1], y[0, :, :1], **QUICK)
    assert column.value == pytest.approx(mi_neural(x[0, :, 0], y[0, :, 0], **QUICK).value, abs=1e-6)


X, Y = normal(0.5, 150)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mi_neural(X[:99], Y[:99]), "x: 99 samples are too few; this estimator needs at least 100"),
        (lambda: mi_neural(X, Y[:-1]), "x, y: shapes"),
        (lambda: mi_neural(np.where(X > 1, np.nan, X), Y), "x: .* values are NaN or infinite"),
        (lambda: mi_neural(X, np.ones(150)), r"y: slice 0 is constant \(1\)"),
        (lambda: mi_neural_joint(X, Y), r"x: shape \(150,\); pass \(n, d\)"),
        (lambda: mi_neural_joint(np.stack([X, 0 * X], axis=1), Y[:, None]), "x: column 1 of slice 0 is constant"),
        (lambda: mi_neural(X, Y, objective="dv"), "objective: 'dv' does not exist; choose one of mine, nwj, infonce"),
        (lambda: mi_neural(X, Y, depth=3), "neural option: 'depth' does not exist"),
        (lambda: mi_neural(X, Y, hidden=0), "neural option hidden: 0; it must be a whole number from 1"),
        (lambda: mi_neural(X, Y, steps=1.5), "neural option steps: 1.5; it must be a whole number from 1"),
        (lambda: mi_neural(X, Y, learning_rate=-0.1), "learning_rate: -0.1"),
        (lambda: mi_neural(X, Y, weight_decay=-1.0), "weight_decay: -1"),
        (lambda: mi_neural(X, Y, group=1), "group: 1; it must be a whole number from 2"),
        (lambda: mi_neural(X, Y, batch=8), "batch: 8; it must be at least one group, 16"),
        (lambda: mi_neural(X, Y, train=0.95), "train, stop: 0.95 and 0.1; they must leave a share for reporting"),
        (lambda: mi_neural(X, Y, train=0.899), "train, stop: 0.899 and 0.1 part the samples into 135, 15, 0"),
        (lambda: mi_neural(X, Y, rate=1), "rate: 1; it must be a number above 0 and below 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_divergence_raises_and_says_what_to_do():
    x, y = normal(0.99, 400)
    message = re.escape("nwj: the training of row 0 diverged by step 10 (value ")
    with pytest.raises(FloatingPointError, match=message + ".*try a learning_rate below 10000"):
        mi_neural(x, y, objective="nwj", learning_rate=1e4, every=10, **QUICK)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    x, y = (torch.as_tensor(v) for v in normal(0.8, 2, 2000))
    there = mi_neural(x.cuda(), y.cuda(), steps=200).per_slice
    np.testing.assert_allclose(there, mi_neural(x, y, steps=200).per_slice, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_acceptance_two_nats(objective):
    """5,000 samples, mean of four: 2 nats between vectors of five, where InfoNCE and SMILE miss the limit of 0.1."""
    r = math.sqrt(1 - math.exp(-0.8))
    estimate = mi_neural_joint(*normal(r, 4, 5000, 5), objective=objective)
    assert abs(estimate.value - 2) < (0.1 if objective in ("mine", "nwj") else 0.17)
