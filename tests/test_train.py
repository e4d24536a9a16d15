from dataclasses import replace

import pytest
import torch
from samples import some_images

from miue import Images
from miue.defenses import Defense
from miue.errors import InputError
from miue.models import build
from miue.training import loop, recipes
from miue.training.loop import Recipe, accuracy, epochs, features
from miue.victim import train_victim

SHORT = Recipe(epochs=3, lr=0.05, schedule="one_cycle", batch=16, precision="float32")


def easy(n=64):
    """Two classes that differ in brightness."""
    y = torch.arange(n) % 2
    x = (torch.randint(0, 100, (n, 3, 8, 8)) + 150 * y[:, None, None, None]).to(torch.uint8)
    return Images(x, y, ["dark", "bright"])


def fit(images, recipe, **how):
    return train_victim(images, recipe=recipe, cache=False, **how).model


def test_it_learns_what_can_be_learned():
    victim = train_victim(easy(), easy(), recipe=replace(SHORT, epochs=6), cache=False)
    seen = victim.history
    assert victim.accuracy > 0.95
    assert [e.epoch for e in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].test_accuracy == accuracy(victim.model, easy())
    assert seen[-1].loss < seen[0].loss


def test_labels_without_a_pattern_are_not_found_on_new_images():
    model = fit(some_images(seed=0), SHORT)
    assert accuracy(model, some_images(n=400, seed=1)) < 0.4


def test_the_seed_decides_bit_for_bit(images):
    runs = [fit(images, replace(SHORT, flip=True, crop=1), seed=s) for s in (3, 3, 4)]
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_perturbation_that_changes_between_epochs_is_seen():
    base = easy()
    delta = torch.zeros(base.x.shape, dtype=torch.int16)
    model = build("small_resnet", 2, size=8)
    recipe = Recipe(epochs=9, lr=0.1, schedule="constant", batch=16, precision="float32")
    for epoch in epochs(model, base.plus(delta), recipe):
        if epoch.epoch == 4:  # from here on the brightness is reversed
            delta += torch.where(base.y == 1, -150, 150)[:, None, None, None].to(torch.int16)
    assert accuracy(model, base) < 0.5 < accuracy(model, base.plus(delta))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_schedules_end_where_they_should(schedule, images, monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    fit(images, replace(SHORT, schedule=schedule, lr=0.1))
    assert len(rates) == 9
    first, last = {"constant": (0.1, 0.1), "cosine": (0.1, 0.025), "one_cycle": (0.004, 4e-7)}[schedule]
    assert rates[0] == pytest.approx(first, rel=0.05)
    assert rates[-1] == pytest.approx(last, rel=0.05)


def test_epochs_of_few_batches_go_through_all_images(images):
    seen = []
    view = images.on("cpu")
    read = view.batch
    view.batch = lambda index: (seen.extend(index.tolist()), read(index))[1]
    view.on = lambda device: view
    recipe = replace(SHORT, schedule="constant", batches_per_epoch=1)
    list(epochs(build("small_resnet", 4, size=8), view, recipe))
    assert sorted(seen) == list(range(48))


def test_a_lone_last_image_does_not_break_batch_norm():
    assert fit(some_images(n=17), SHORT)


def test_features_feed_the_head_and_leave_the_mode_alone(images):
    model = build("small_resnet", 4, size=8).train()
    z = features(model, images)
    assert z.shape == (48, 64) and z.dtype == torch.float32
    assert model.training
    model.eval()
    assert (model.head(z).argmax(1) == images.y).float().mean() == pytest.approx(accuracy(model, images))


def test_divergence_is_an_error(images):
    with pytest.raises(FloatingPointError, match="training diverged: loss .* learning rate"):
        fit(images, Recipe(epochs=8, lr=1e9, schedule="constant", batch=16, precision="float32"))


def test_recipes_are_looked_up_and_changed():
    assert recipes.recipe("quick") is not None and recipes.recipe("quick", epochs=2).epochs == 2
    with pytest.raises(InputError, match="recipe: 'slow' does not exist; choose one of quick"):
        recipes.recipe("slow")
    with pytest.raises(InputError, match="recipe option: 'speed' does not exist"):
        recipes.recipe("quick", speed=3)
    with pytest.raises(InputError, match="recipe option epochs: 2.5; it must be a whole number from 1"):
        recipes.recipe("quick", epochs=2.5)
    with pytest.raises(InputError, match="recipe option lr: -1; it must be a number above 0"):
        recipes.recipe("quick", lr=-1)
    with pytest.raises(InputError, match="schedule: 'linear'"):
        recipes.recipe("quick", schedule="linear")


def test_one_image_is_too_few():
    with pytest.raises(InputError, match="training needs at least 2"):
        list(loop.epochs(build("small_resnet", 4, size=8), some_images(n=4).subset(torch.tensor([0])), SHORT))


class Watching(Defense):
    """Keeps what it is shown."""

    def __init__(self):
        object.__setattr__(self, "seen", [])

    def batch(self, x, y, moment):
        self.seen.append((x.clone(), y.clone(), moment))
        return super().batch(x, y, moment)


def test_augmentation_moves_image_and_perturbation_together():
    images = some_images(n=32)
    delta = torch.randint(-8, 9, images.x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    shown, watching = images.plus(delta), Watching()
    mirrored = Recipe(1, 0.1, "constant", batch=8, flip=True)
    for _ in epochs(build("linear", 4, size=8), shown, mirrored, defense=watching):
        pass
    known = {image.numpy().tobytes() for image in (*shown.x, *shown.x.flip(3))}
    seen = torch.cat([x for x, _, _ in watching.seen])
    assert all(image.contiguous().numpy().tobytes() in known for image in seen)
    assert any(not (image == shown.x).flatten(1).all(1).any() for image in seen)


def test_every_epoch_comes_in_an_order_of_its_own_and_knows_how_far_it_is():
    images, watching = some_images(n=32, classes=8), Watching()
    for _ in epochs(build("linear", 8, size=8), images, Recipe(2, 0.1, "constant", batch=8), defense=watching):
        pass
    orders = [torch.cat([y for _, y, _ in watching.seen[part]]) for part in (slice(0, 4), slice(4, 8))]
    assert not torch.equal(orders[0], images.y) and not torch.equal(orders[0], orders[1])
    assert [moment.done for _, _, moment in watching.seen] == [k / 8 for k in range(8)]


def test_the_multi_step_schedule_divides_by_ten_twice():
    model, rates = build("linear", 4, size=8), []
    step = torch.optim.SGD.step

    def watched(self, *rest, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", watched)
        for _ in epochs(model, some_images(n=8), Recipe(10, 1.0, "steps", batch=8)):
            pass
    assert rates == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 2)
