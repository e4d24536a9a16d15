"""One critic for all slices: what it finds, and what it refuses."""

import pytest
import torch

from miue.errors import InputError
from miue.mi import shared_critic_mi, sliced_mi
from miue.mi.shared_critic import SETTINGS, _SlicedCritic


def pair(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, d, generator=generator)
    return x, 0.9 * x + 0.19**0.5 * noise


@pytest.mark.slow
def test_of_few_dimensions_it_finds_what_separate_slices_share_and_nothing_where_nothing_is():
    x, y = pair(4000, 4)
    known = sliced_mi(x, y, "ksg", n_slices=64)
    found = shared_critic_mi(x, y, n_slices=64, steps=1500)
    assert 0.5 * known.value < found.value < 1.1 * known.value
    assert abs(shared_critic_mi(x, pair(4000, 4, seed=1)[0], n_slices=64, steps=300).value) < 0.01


def test_a_slice_is_seen_as_its_projection_and_its_direction_and_nothing_else():
    x, y = pair(40, 3)
    critic = _SlicedCritic(3, 3, SETTINGS, torch.Generator().manual_seed(0), x.device)
    theta = torch.tensor([[1.0, 0, 0]])
    critic.directions = theta, theta
    scores = critic.scores(x[None], y[None], 20)
    moved = x + torch.tensor([0.0, 5, -3])
    assert scores.shape == (1, 2, 20, 20) and torch.equal(critic.scores(moved[None], y[None], 20), scores)
    critic.directions = theta.roll(1, 1), theta
    assert not torch.allclose(critic.scores(x[None], y[None], 20), scores)


def test_the_seed_decides():
    x, y = pair(200, 3)
    values = [shared_critic_mi(x, y, n_slices=4, steps=20, seed=seed).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"x": torch.randn(50, 3), "y": torch.randn(50, 3)}, "50 samples are too few"),
        ({"x": torch.randn(200, 3), "y": torch.randn(100, 3)}, "200 and 100 rows"),
        ({"objective": "mime"}, "objective"),
        ({"n_slices": 0}, "n_slices: 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(how, message):
    x, y = pair(200, 3)
    with pytest.raises(InputError, match=message):
        shared_critic_mi(**{"x": x, "y": y, "steps": 20} | how)
