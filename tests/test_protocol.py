"""What a reviewer would ask first: who shares what with whom, and whether what is compared was given the same."""

import itertools
import json
from dataclasses import asdict, replace

import pytest
import torch
from samples import some_images

from miue import models, pgd, poisons, seeds
from miue.data import loading
from miue.data.images import Images
from miue.errors import InputError
from miue.experiments import comparison, plan, records
from miue.experiments.comparison import Records, Setting, Trial, compare
from miue.models import build
from miue.poisons import METHODS, perturb
from miue.training import loop, recipes

WITH_SURROGATE = [name for name, method in METHODS.items() if method.outer] + ["pil"]
SETTING = Setting(preset="quick", recipe="quick:epochs=1:batch=16", n_slices=4, estimator="histogram")


class Stop(Exception):
    """The surrogate stands; nothing more is needed."""


@pytest.fixture
def few_images(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: (some_images(n=96), some_images(n=40, seed=1)))


def surrogate_of(method, monkeypatch, seed=0):
    """The network whose gradients shape delta, as it is before its first step."""
    found = []

    def built(*args, **options):
        found.append(build(*args, **options))
        return found[-1]

    def stop(network, *args, **options):
        found.append(network)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(models, "build", built)
        patch.setattr(loop, "epochs", stop)
        patch.setattr(poisons.gue, "_follow", stop)
        patch.setattr(poisons.tue, "train_round", stop)
        with pytest.raises(Stop):
            perturb(some_images(), method, preset="quick", seed=seed, device="cpu", cache=False)
    return found[0]


def matrices(network):
    """Weights of convolutions and linear layers."""
    return [weight for weight in network.state_dict().values() if weight.ndim > 1]


@pytest.mark.parametrize("method", WITH_SURROGATE)
def test_no_weight_of_a_fresh_victim_is_one_of_the_surrogates(method, monkeypatch):
    surrogate = surrogate_of(method, monkeypatch)
    model = "linear" if method == "pil" else "small_resnet"
    victim = build(model, 4, size=8, seed=seeds.victim(0).weights)
    pairs = itertools.product(matrices(surrogate), matrices(victim))
    same_shape = [(one.flatten(), other.flatten()) for one, other in pairs if one.shape == other.shape]
    assert same_shape
    assert not any(torch.equal(one, other) for one, other in same_shape)


@pytest.mark.parametrize("method", ["em", "mi_ue", "tap"])
def test_a_twin_can_be_had_by_asking(method, monkeypatch):
    surrogate = surrogate_of(method, monkeypatch, seed=3)
    for twin in ("weights", "weights+order"):
        victim = build("small_resnet", 4, size=8, seed=seeds.victim(8, twin, 3).weights)
        assert all(map(torch.equal, matrices(surrogate), matrices(victim)))


def order_of(images, streams, monkeypatch):
    """The rows of the training images in the order in which a training of two epochs reads them."""
    read, batch = [], Images.batch
    with monkeypatch.context() as patch:
        patch.setattr(Images, "batch", lambda self, index: (read.append(index), batch(self, index))[1])
        recipe = recipes.recipe("quick", epochs=2, batch=16)
        for _ in loop.epochs(build("linear", 4, size=8), images, recipe, seed=streams, device="cpu"):
            pass
    return torch.cat(read)


def test_a_stranger_meets_the_images_in_an_order_of_its_own_and_a_twin_in_the_surrogates(monkeypatch):
    images = some_images()
    surrogates = order_of(images, seeds.surrogate(0), monkeypatch)
    assert not torch.equal(order_of(images, seeds.victim(0), monkeypatch), surrogates)
    assert not torch.equal(order_of(images, seeds.victim(0, "weights", 0), monkeypatch), surrogates)
    assert torch.equal(order_of(images, seeds.victim(0, "weights+order", 0), monkeypatch), surrogates)


def test_augmentation_does_not_move_the_order(monkeypatch):
    images, recipe = some_images(), recipes.recipe("quick", epochs=1, batch=16)
    states = []
    for changes in ({"flip": False, "crop": 0}, {"flip": True, "crop": 2}):
        read, batch = [], Images.batch
        with monkeypatch.context() as patch:
            patch.setattr(Images, "batch", lambda self, index, r=read, b=batch: (r.append(index), b(self, index))[1])
            changed = recipes.recipe("quick", epochs=recipe.epochs, batch=16, **changes)
            list(loop.epochs(build("linear", 4, size=8), images, changed, device="cpu"))
        states.append(torch.cat(read))
    assert torch.equal(*states)


def test_one_perturbation_meets_several_victims(few_images, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(comparison, "perturb", lambda **how: (made.append(how["seed"]), perturb(**how))[1])
    wanted = comparison.trials(["clean", "lsp"], ["mlp2:width=0.05"], [], [0], [0, 1, 2])
    table = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING))
    assert list(table["victim_seed"]) == [0, 0, 1, 1, 2, 2] and set(made) == {0}
    assert table[table["method"] == "lsp"]["mi"].nunique() > 1


def test_a_victim_has_the_number_of_its_perturbation_where_nothing_else_is_said():
    assert Trial("em", "linear", seed=4).victim_seed == 4
    assert Trial("em", "linear", seed=4, victim_seed=0).victim_seed == 0


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial("em", "mlp2", twin="weights"), "victim: mlp2; a twin must be of the surrogate's network, small_resnet"),
        (Trial("lsp", "small_resnet", twin="weights"), "method: lsp has no surrogate, so there is no twin of it"),
        (Trial("ar", "small_resnet", twin="weights+order"), "method: ar has no surrogate, so there is no twin of it"),
        (Trial("clean", "small_resnet", twin="weights+order"), "method: clean has no surrogate"),
    ],
)
def test_a_twin_of_a_surrogate_that_is_not_there_is_refused(trial, message):
    with pytest.raises(InputError, match=message):
        trial.check(SETTING)


@pytest.mark.parametrize("method", ["gue", "tue", "uc:pretext=untrained"])
def test_an_order_that_no_victim_can_follow_is_refused_and_weights_are_not(method):
    with pytest.raises(InputError, match=f"method: the surrogate of {method} is not trained in epochs"):
        Trial(method, "small_resnet", twin="weights+order").check(SETTING)
    for trial in (Trial(method, "small_resnet", twin="weights"), Trial("uc", "small_resnet", twin="weights+order")):
        trial.check(replace(SETTING, passes="own"))


def test_where_no_trial_is_wanted_the_file_that_holds_none_is_named(few_images, tmp_path):
    with pytest.raises(InputError, match="records: .*r.jsonl holds no trial that is asked for, and none is to be"):
        compare([], SETTING, Records(tmp_path / "r.jsonl", SETTING))


def test_what_is_withheld_costs_no_steps(few_images, tmp_path):
    wanted = [Trial("lsp", "linear", ratio=0.8), Trial("withheld", "linear", ratio=0.8), Trial("clean", "linear")]
    table = compare(wanted, SETTING, Records(tmp_path / "r.jsonl", SETTING))
    assert list(table["trained_on"]) == [96, 19, 96]
    assert set(table["victim_steps"]) == {6}


@pytest.mark.parametrize("preset", ["quick", "laptop", "paper"])
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.outer])
def test_equal_passes_are_as_many_rounds_as_fit(method, preset):
    allowed = Setting(preset=preset).allowed
    assert allowed == {"quick": 60, "laptop": 165, "paper": 1100}[preset]
    if preset == "paper" and method == "pue":  # 60 draws a step: a round of it takes 61 passes
        allowed = 6100
    chosen, own = poisons.options(method, preset, passes=allowed), poisons.options(method, preset)
    if not own.passes:
        return
    assert chosen.passes <= allowed
    one, two = (poisons.options(method, preset, passes=allowed + more).passes for more in (0, allowed))
    assert one == chosen.passes < two


def test_a_number_of_rounds_that_is_asked_for_stays():
    assert poisons.options("em:epochs=7", "quick", passes=60).surrogate.epochs == 7
    assert poisons.options("tap", "quick", passes=60, steps=3).steps == 3
    assert poisons.options("em", "quick", passes=60).surrogate.epochs == 5


def test_too_few_passes_are_refused():
    with pytest.raises(InputError, match=r"passes: 3; mi_ue takes 6 for a single round of its epochs$"):
        poisons.options("mi_ue", "quick", passes=3)


def test_a_record_says_what_was_made_and_what_was_allowed():
    changes = {"batch": 16, "pass_batch": 24, "steps": 2, "stop_accuracy": 0.01}
    poison = perturb(some_images(), "em", preset="quick", device="cpu", passes=30, **changes, cache=False)
    assert poison.record["passes_allowed"] == 30 and len(poison.record["notes"]["rounds"]) == 1
    assert poison.record["passes"] == 3  # ten batches of 16 are more than one pass over 48 images, two steps make two


SMALL_STEPS = {"epochs": 4, "steps": 1, "step": 0.2 / 255, "last_step": 0.2 / 255, "batch": 16, "pass_batch": 24}


def test_steps_below_half_a_level_add_up():
    poison = perturb(some_images(), "mi_ue", preset="quick", device="cpu", **SMALL_STEPS, cache=False)
    assert int(poison.delta.abs().max()) == 1 and poison.delta.dtype == torch.int8


def test_a_delta_that_ends_at_zero_is_an_error():
    with pytest.raises(InputError, match="mi_ue: delta is 0 everywhere once it is rounded .*steps 1"):
        perturb(some_images(), "mi_ue", preset="quick", device="cpu", rounding="each_pass", **SMALL_STEPS, cache=False)


def test_the_paper_preset_is_the_published_schedule():
    chosen = poisons.options("mi_ue", "paper")
    assert chosen.surrogate.flip and chosen.surrogate.crop == 0 and chosen.rounding == "once"
    assert (chosen.zeta, chosen.steps, chosen.pass_batch, chosen.surrogate.epochs) == (0.1, 10, 512, 100)


def test_a_delta_of_floating_point_is_added_without_rounding():
    images = some_images(n=4)
    delta = torch.full((4, 3, 8, 8), 0.25, dtype=torch.float16)
    x, _ = images.plus(delta).batch(torch.arange(4))
    assert x.dtype == torch.float32 and torch.equal(x, (images.x + 0.25).clamp(max=255))


def earlier(tmp_path):
    """A file of records as version 2 wrote it."""
    setting = {name: value for name, value in asdict(Setting()).items() if name != "passes"}
    head = {"version": 2, "setting": setting}
    own = {"method": "em", "victim": "small_resnet", "defense": "none", "seed": 1, "surrogate": "small_resnet"}
    own |= {"epsilon": "8/255", "ratio": 1.0, "test_accuracy": 0.1, "passes": 420, "content_hash": "x"}
    file = tmp_path / "old.jsonl"
    file.write_text(json.dumps(head) + "\n" + json.dumps(own) + "\n")
    return file


@pytest.mark.parametrize("passes", ["own", "equal"])
def test_records_of_before_are_refused_before_anything_is_computed(tmp_path, passes):
    file = earlier(tmp_path)
    before = file.read_bytes()
    for opened in (Records, lambda path, setting: plan.make([], setting, path), lambda path, _: records.read(path)):
        with pytest.raises(InputError, match=r"old\.jsonl is of version 2; it must be 4, so measure into another file"):
            opened(file, Setting(passes=passes))
    assert file.read_bytes() == before


def test_a_control_with_more_steps_than_images_has_full_batches(monkeypatch):
    read, batch = [], Images.batch
    with monkeypatch.context() as patch:
        patch.setattr(Images, "batch", lambda self, index: (read.append(index), batch(self, index))[1])
        recipe = recipes.recipe("quick", epochs=2, batch=16, batches_per_epoch=12)
        list(loop.epochs(build("linear", 4, size=8), some_images(n=19), recipe, device="cpu"))
    assert len(read) == 24 and {len(index) for index in read} == {16}
    assert torch.cat(read[:12]).bincount().max() - torch.cat(read[:12]).bincount().min() <= 1


def test_a_round_of_em_trains_on_no_image_twice():
    changes = {"batch": 16, "pass_batch": 24, "steps": 2, "epochs": 3, "stop_accuracy": 1.0}
    poison = perturb(some_images(), "em", preset="quick", device="cpu", **changes, cache=False)
    assert poison.record["passes"] == 9 and len(poison.record["notes"]["rounds"]) == 3


@pytest.mark.parametrize("method", ["em:scope=class:epochs=1", "tue:contrastive=0:rounds=1", "pil:epochs=1"])
def test_a_gradient_that_is_not_finite_is_an_error(method, monkeypatch):
    def broken(objective, moving, *rest, **how):
        return torch.full_like(moving, torch.nan)

    for module in (poisons.em, poisons.pil, pgd):
        monkeypatch.setattr(module, "sign_steps", broken)
    with pytest.raises(FloatingPointError, match="not finite"):
        perturb(some_images(), method, preset="quick", device="cpu", batch=16, cache=False)
