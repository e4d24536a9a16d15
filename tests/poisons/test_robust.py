"""REM, SEM and the parts that they share with MI-UE: random views, and an attack inside them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from samples import some_images

from miue.pgd import Budget, pgd
from miue.poisons import METHODS, options, perturb
from miue.poisons.eot import adversarial, against, expect
from miue.poisons.passes import PGDPass
from miue.training.loop import BatchContext

small = partial(perturb, cache=False, preset="quick", device="cpu", epochs=2, pass_batch=24, batch=16)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return some_images()


@pytest.fixture(scope="module")
def batch(images):
    x, y = images.batch(torch.arange(len(images)))
    return x.float() / 255, y


def loss(images, labels):
    """Cross-entropy of a classifier that compares mean colours: it minds neither flips nor dark borders."""
    weights = torch.tensor([[1.0, 0.0, -1.0, 0.0], [-1.0, 1.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.0]])
    return F.cross_entropy(40 * images.mean((2, 3)) @ weights, labels)


def test_an_attack_raises_the_loss_within_its_radius(batch):
    x, y = batch
    drawn = against(loss, x, y, seeded(), radius=4 / 255, steps=0)
    attacked = against(loss, x, y, seeded(), radius=4 / 255, steps=5)
    for moved in (drawn, attacked):
        assert 3 < 255 * (moved - x).abs().max() < 4.001 and moved.min() >= 0 and moved.max() <= 1
    assert loss(attacked, y) > loss(drawn, y) + 0.1


def test_methods_that_share_their_code_keep_their_names(images):
    assert small(images, METHODS["sem"]).record["method"] == "sem"


def test_the_surrogate_is_trained_on_attacked_images_with_their_labels(images):
    x, y = images.batch(torch.arange(12))
    attack = adversarial(4 / 255, steps=3)
    assert attack.prepare(images, 0) is images
    now = BatchContext(lambda shown, labels: loss(shown, labels)[None], 4, seeded(), seeded(), 0.0)
    trained_on, targets = attack.batch(x, y, now)
    assert targets is y and (255 * trained_on - x).abs().max() < 4.001
    assert loss(trained_on, y) > loss(x.float() / 255, y)


def test_a_stronger_attack_leaves_the_surrogate_a_larger_loss(images):
    weak, strong = (small(images, "sem", surrogate_epsilon=e / 255).record["notes"]["epochs"] for e in (1, 32))
    assert strong[0]["surrogate_loss"] > weak[0]["surrogate_loss"]


def test_a_view_is_a_flip_and_a_crop_of_the_sum(batch):
    x, y = batch
    seen = []
    expect(lambda images, labels: seen.append(images) or images.mean(), 3, seeded())(x, y)
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])
    padded = F.pad(x, (1, 1, 1, 1))  # an eighth of 8 pixels
    windows = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    windows += [window.flip(3) for window in windows]
    for view in seen:
        assert torch.stack([(view == w).flatten(1).all(1) for w in windows]).any(0).all()


def test_the_expectation_is_the_mean_over_the_draws(batch):
    x, y = batch
    singly = seeded()
    mean = sum(expect(loss, 1, singly)(x, y) for _ in range(4)) / 4
    torch.testing.assert_close(expect(loss, 4, seeded())(x, y), mean)


def test_a_perturbation_made_for_flips_and_crops_survives_them_better(images, batch):
    x, y = batch
    weights = torch.randn(x.shape, generator=seeded(1))

    def template(shown, labels):
        return (shown * weights).sum()

    reached = []
    for seen in (template, expect(template, 8, seeded(3))):
        delta = torch.zeros(images.x.shape, dtype=torch.int8)
        delta = pgd(seen, images.x, images.y, delta, budget=Budget(8 / 255), step=2 / 255, steps=5)
        reached.append(expect(template, 32, seeded(2))(x + delta / 255, y))
    plain, hardened = reached
    assert hardened < plain < expect(template, 32, seeded(2))(x, y)


def test_gradients_pass_the_attack_as_if_it_were_added(batch):
    x, y = batch
    weights = torch.randn(x.shape, generator=seeded(1))
    gradients = []
    for inner in (None, partial(against, noise=seeded(4), radius=4 / 255, steps=2)):
        moving = x.clone().requires_grad_()
        value = expect(lambda images, labels: (images * weights).sum(), 1, seeded(), inner)(moving, y)
        gradients.append(torch.autograd.grad(value, moving)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("inner_steps", [3, 0], ids=["rem", "sem"])
def test_delta_lowers_the_loss_of_attacked_images_that_it_has_not_seen(images, batch, inner_steps):
    x, y = batch
    delta = torch.zeros(images.x.shape, dtype=torch.float16)
    inner = partial(against, noise=seeded(4), radius=4 / 255, steps=inner_steps)
    budget = Budget(8 / 255)
    seen = expect(loss, 2, seeded(1), inner)
    PGDPass(images, seen, batch=24, budget=budget, steps=6, order=seeded(2))(delta, 2 / 255)
    before, after = (
        expect(loss, 4, seeded(3), partial(against, noise=seeded(5), radius=4 / 255, steps=4))(x + d / 255, y)
        for d in (0, delta)
    )
    assert after < 0.8 * before


@pytest.mark.parametrize("method", ["rem", "sem"])
def test_the_surrogate_comes_to_fit_the_perturbed_images_under_attack(images, method):
    settings = {"epochs": 6, "crop": 0, "steps": 3, "step": 8 / 255, "epsilon": 32 / 255}
    trace = small(images, method, **settings).record["notes"]["epochs"]
    assert [row["epoch"] for row in trace] == list(range(1, 7))
    assert trace[-1]["surrogate_loss"] < 0.8 * trace[0]["surrogate_loss"]


def test_sem_is_rem_with_a_draw_instead_of_the_inner_attack(images):
    shared = {"steps": 2, "eot": 2, "step": 2 / 255}
    sem, rem = small(images, "sem", **shared), small(images, "rem", **shared)
    assert torch.equal(small(images, "rem", **shared, inner_steps=0).delta, sem.delta)
    assert not torch.equal(rem.delta, sem.delta)


def test_the_paper_presets_are_the_published_settings():
    rem, sem = (options(name, "paper") for name in ("rem", "sem"))
    for chosen in (rem, sem):
        assert (chosen.steps, chosen.step * 255, chosen.eot, chosen.pass_batch) == (10, pytest.approx(1.6), 5, 128)
        assert (chosen.surrogate_epsilon * 255, chosen.surrogate_steps) == (pytest.approx(4), 10)
        assert (chosen.surrogate.lr, chosen.surrogate.weight_decay, chosen.surrogate.batch) == (0.1, 5e-4, 128)
        assert chosen.surrogate.flip and chosen.surrogate.crop == 4
    assert (rem.inner_steps, sem.inner_steps) == (10, 0)
    assert rem.passes == pytest.approx(7700, rel=0.06) and sem.passes == pytest.approx(830, rel=0.06)


@pytest.mark.parametrize("method", ["rem", "sem"])
def test_the_small_presets_stay_small(method):
    assert options(method, "quick").passes < 30 and options(method, "laptop").passes < 120
