"""MI-UE: the paper's settings, what its loss does, and the variants that leave something out or add it."""

from functools import partial

import pytest
import torch
from samples import some_images

from miue import seeds
from miue.data.choosing import long_tailed
from miue.errors import InputError
from miue.losses import agreement_term, mi_ue_loss
from miue.models.frozen import Frozen
from miue.poisons import options, perturb
from miue.poisons.base import surrogate_network
from miue.poisons.eot import expect
from miue.poisons.passes import on_outputs
from miue.training.loop import epochs, features

small = partial(
    perturb, method="mi_ue", cache=False, preset="quick", device="cpu", epochs=6, steps=5, pass_batch=64, batch=16
)


@pytest.fixture(scope="module")
def images():
    return some_images(n=64)


def trace(poison):
    return poison.record["notes"]["epochs"]


@pytest.fixture(scope="module")
def plain(images):
    return small(images)


def test_options_of_the_surrogate_recipe_can_be_changed():
    changed = options("mi_ue", "paper", epochs=7, steps=3)
    assert (changed.surrogate.epochs, changed.steps, changed.surrogate.batch) == (7, 3, 128)


def test_the_paper_preset_is_the_papers():
    paper = options("mi_ue", "paper")
    assert (paper.surrogate.epochs, paper.steps, paper.pass_batch) == (100, 10, 512)
    assert (paper.temperature, paper.zeta) == (0.1, 0.1)
    assert (paper.step * 255, paper.last_step * 255) == pytest.approx((0.2, 0.4))
    assert (paper.surrogate.lr, paper.surrogate.momentum, paper.surrogate.weight_decay) == (0.1, 0.9, 1e-4)
    assert (paper.surrogate.batch, paper.surrogate.schedule) == (128, "cosine")
    assert paper.similarity and not paper.eot and not paper.surrogate_epsilon
    assert paper.passes == 1100


def test_it_lowers_its_loss_and_points_classes_apart(plain):
    rows = trace(plain)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["similarity"] < 0.7 * rows[0]["similarity"]


def test_without_the_similarity_term_only_distances_count(images):
    """Neither the temperature nor the weight of what is left changes the sign of a gradient."""
    one = small(images, epochs=2, similarity=False)
    other = small(images, epochs=2, similarity=False, temperature=1.0, zeta=1.6)
    assert torch.equal(one.delta, other.delta)


def test_each_term_alone_lowers_itself_more_than_the_other_does(images):
    similarity, distance = (trace(small(images, epochs=1, **o))[0] for o in ({"zeta": 0.0}, {"similarity": False}))
    assert similarity["similarity"] < distance["similarity"]
    assert distance["distance"] < similarity["distance"]


def test_a_perturbation_made_for_flips_and_crops_survives_them_better(images):
    """After one epoch the surrogate is the same with and without them: it has seen the clean shown."""
    settings = {"epochs": 1, "epsilon": 32 / 255, "step": 8 / 255, "last_step": 8 / 255}
    plain, hardened = (small(images, eot=eot, **settings) for eot in (0, 6))
    network = surrogate_network("small_resnet", images, seed=0)
    list(
        epochs(
            network,
            images,
            options("mi_ue", "quick", epochs=1, batch=16).surrogate,
            seed=seeds.surrogate(0),
            device="cpu",
        )
    )
    loss = on_outputs(Frozen(network), lambda logits, features, labels: mi_ue_loss(features, labels))

    def losses(poison):
        shown = poison.apply(images).x / 255
        moved = expect(loss, 12, torch.Generator().manual_seed(5))
        return float(loss(shown, images.y).detach()), float(moved(shown, images.y).detach())

    (still, moved), (hardened_still, hardened_moved) = losses(plain), losses(hardened)
    assert still < hardened_still and hardened_moved < moved


def test_the_attack_on_the_surrogate_raises_its_loss_and_changes_delta(images, plain):
    hardened = small(images, epochs=2, surrogate_epsilon=32 / 255, surrogate_steps=2)
    assert trace(hardened)[1]["surrogate_loss"] > trace(plain)[1]["surrogate_loss"]
    assert not torch.equal(hardened.delta, plain.delta)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, 60),
        ({"eot": 1}, 60),
        ({"eot": 4}, 210),
        ({"surrogate_epsilon": 4 / 255}, 160),
        ({"every": 2}, 35),
        ({"every": 4}, 25),  # after epochs 4, 8 and 10
        ({"interleaved": True}, 60),
    ],
)
def test_passes_count_the_draws_and_the_attack(change, passes):
    assert options("mi_ue", "quick", **change).passes == passes


@pytest.mark.parametrize(("change", "epochs", "passes"), [({}, 10, 60), ({"every": 2}, 17, 62), ({"every": 3}, 22, 62)])
def test_a_budget_of_passes_buys_the_most_epochs_that_fit(change, epochs, passes):
    chosen = options("mi_ue", "quick", passes=62, **change)
    assert (chosen.surrogate.epochs, chosen.passes) == (epochs, passes)


def test_with_every_second_epoch_passes_follow_these_and_the_last(images):
    made = small(images, epochs=5, every=2, steps=1)
    assert [row["epoch"] for row in trace(made)] == [2, 4, 5]
    assert made.record["passes"] == made.record["passes_allowed"] == 8


def test_it_ends_early_where_the_loss_is_low_enough(images, plain):
    threshold = trace(plain)[3]["loss"]
    made = small(images, stop_loss=threshold)
    assert trace(made) == trace(plain)[:4] and (made.record["passes"], made.record["passes_allowed"]) == (24, 36)


def test_an_interleaved_pass_moves_every_image_once_in_each_epoch(images):
    """The first epoch meets other weights in each of its four batches; levels moved are those of its steps."""
    step = 2 / 255
    made = small(images, epochs=1, steps=1, interleaved=True, pass_batch=16, step=step, last_step=step)
    moved = made.delta.abs().amax((1, 2, 3))
    assert moved.eq(2).all() and len(trace(made)) == 1
    at_the_end = small(images, epochs=1, steps=1, pass_batch=16, step=step, last_step=step)
    assert not torch.equal(made.delta, at_the_end.delta)


def test_an_interleaved_pass_of_one_part_is_a_pass(images):
    how = {"epochs": 2, "batch": 64, "steps": 2}
    assert torch.equal(small(images, interleaved=True, **how).delta, small(images, **how).delta)


def test_cross_entropy_as_objective_is_what_the_steps_lower(images, plain):
    made = small(images, objective="cross_entropy")
    assert trace(made)[-1]["loss"] < trace(made)[0]["loss"] and not torch.equal(made.delta, plain.delta)


def test_neither_self_pairs_nor_the_mean_are_without_effect(images, plain):
    others = [small(images, epochs=2, objective=name).delta for name in ("no_self_pairs", "centred")]
    assert not any(torch.equal(one, other) for one, other in [others, (others[0], plain.delta)])


def test_with_content_flips_half_of_the_images_are_mirrored_and_no_delta(images):
    """Of an image that is its own mirror image the step is the same; of the others half see other gradients."""
    how = {"epochs": 1, "steps": 1}
    mirror = images.with_pixels(torch.cat([images.x[..., :4], images.x[..., :4].flip(3)], 3))
    assert torch.equal(small(mirror, **how).delta, small(mirror, content_flips=True, **how).delta)
    plain, flipped = (small(images, content_flips=flips, **how).delta for flips in (False, True))
    assert not torch.equal(plain, flipped)


@pytest.mark.slow
def test_agreement_holds_perturbed_features_to_the_clean_ones_of_their_class(images):
    free, held = (small(images, epochs=6, agreement=weight) for weight in (0.0, 10.0))
    network = surrogate_network("small_resnet", images, seed=0)

    def far(poison):
        clean, moved = (features(network, shown) for shown in (images, poison.apply(images)))
        return float(agreement_term(moved, clean, images.y))

    assert far(held) < far(free)


def test_balance_gives_rare_classes_their_part(images):
    tailed = long_tailed(images, 8)
    assert tailed.y.bincount().tolist() == [16, 8, 4, 2]
    plain, weighed, repeated = (small(tailed, balance=balance, epochs=3) for balance in ("none", "loss", "batches"))
    assert len({poison.delta.numpy().tobytes() for poison in (plain, weighed, repeated)}) == 3
    assert plain.record["passes"] == weighed.record["passes"] == 3 * 6
    assert repeated.record["passes"] == pytest.approx(3 * (1 + 5 * 64 / 30))
    assert torch.equal(small(images, balance="loss", epochs=1).delta, small(images, epochs=1).delta)  # of one size
    with pytest.raises(InputError, match="balance: 'loss' with sets"):
        options("mi_ue:balance=loss:sets=true", "quick")


def test_a_loss_without_a_term_is_refused():
    with pytest.raises(InputError, match="zeta: 0, without the similarity term; one term of the loss must remain"):
        options("mi_ue", "quick", zeta=0, similarity=False)
