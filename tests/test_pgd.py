import pytest
import torch

from miue.errors import InputError
from miue.pgd import Budget, fit_to_images, in_levels, pgd
from miue.specs import parse_epsilon


@pytest.mark.parametrize(
    ("epsilon", "levels"), [(8 / 255, 8), (0.031, 7), (0.0314, 8), (1 / 255, 1), (127 / 255, 127), (2 / 255, 2)]
)
def test_levels_of_a_budget(epsilon, levels):
    assert Budget(epsilon).levels == levels


@pytest.mark.parametrize("epsilon", [0, -0.1, 0.003, 128 / 255, 1.0, True, float("nan"), float("inf"), "x"])
def test_budgets_out_of_range_are_refused(epsilon):
    with pytest.raises(InputError, match=r"must be a number between 1/255 \(1 level\) and 127/255 \(127 levels\)"):
        Budget(epsilon)


def test_epsilon_is_written_as_fraction_or_number():
    assert parse_epsilon("8/255") == parse_epsilon(8 / 255) == 8 / 255
    assert parse_epsilon("0.031") == 0.031
    for wrong in ("eight", "1/0", "8/255/2", ""):
        with pytest.raises(InputError, match=r"epsilon: .* write it like 8/255 \(8 levels\)"):
            Budget(parse_epsilon(wrong))


@pytest.mark.parametrize(
    ("epsilon", "told"),
    [
        ("8/255", "8/255 (8 levels)"),
        ("0.031", "0.031 (7 levels)"),
        (8 / 255, "0.0313725 (8 levels)"),
        ("1/255", "1/255 (1 level)"),
    ],
)
def test_a_budget_is_shown_with_the_levels_that_it_takes(epsilon, told):
    assert in_levels(epsilon) == told


def linear(weights):
    return lambda images, labels: (images * weights).sum()


def test_steps_follow_the_sign_of_the_gradient():
    x = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    weights = torch.tensor([1.0, -1.0, 0.0, 5.0]).reshape(1, 1, 2, 2)
    start = torch.zeros(x.shape, dtype=torch.int8)
    down = pgd(linear(weights), x, torch.zeros(2), start, budget=Budget(8 / 255), step=2 / 255, steps=3)
    assert down[0].flatten().tolist() == pytest.approx([-6, 6, 0, -6], abs=1e-5)


def test_budget_and_pixel_range_hold():
    x = torch.tensor([0, 3, 252, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    start = torch.zeros(x.shape, dtype=torch.int8)
    for sign in (1.0, -1.0):
        delta = pgd(
            linear(sign * torch.ones(1)), x, torch.zeros(1), start, budget=Budget(8 / 255), step=5 / 255, steps=9
        )
        assert delta.abs().max() <= 8 + 1e-5
        moved = x.int() + delta
        assert moved.min() >= -1e-5 and moved.max() <= 255 + 1e-4
        assert torch.equal(delta.round(), delta.half().float())


def test_levels_are_not_rounded():
    x = torch.full((1, 1, 1, 2), 100, dtype=torch.uint8)
    weights = torch.tensor([1.0, -1.0])
    start = torch.zeros(x.shape, dtype=torch.int8)
    delta = pgd(linear(weights), x, torch.zeros(1), start, budget=Budget(8 / 255), step=0.6 / 255, steps=1)
    assert delta.flatten().tolist() == pytest.approx([-0.6, 0.6])


def test_fit_to_images_keeps_what_fits():
    x = torch.tensor([0, 255, 100], dtype=torch.uint8)
    assert fit_to_images(torch.tensor([-5, 7, -5], dtype=torch.int8), x).tolist() == [0, 0, -5]
