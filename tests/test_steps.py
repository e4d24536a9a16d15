import pytest
import torch
from samples import some_images

from miue import defenses, models, poisons, victim
from miue.defenses import Avatar
from miue.errors import InputError
from miue.poisons import find_perturbation, perturb
from miue.storage.files import cache_dir
from miue.training import loop
from miue.victim import Victim, find_victim, train_victim

ASKED = {"surrogate": "small_resnet", "epsilon": 8 / 255, "seed": 0, "preset": "laptop", "passes": None}
STRANGER = {"seed": 0, "twin": "none", "surrogate_seed": None, "defense": None}
SHORT = {"epochs": 2, "batch": 16, "precision": "float32"}


def test_a_perturbation_is_made_once_and_found_by_all_that_determines_it(images, monkeypatch):
    first = perturb(images, "random", seed=1)
    made = []
    monkeypatch.setattr(poisons, "make", lambda *a: made.append(a[-1]) or first)
    assert torch.equal(perturb(images, "random", seed=1).delta, first.delta)
    assert made == []
    for change in ({"seed": 2}, {"epsilon": 4 / 255}, {"kind": "sign"}):
        perturb(images, "random", **{"seed": 1, **change})
    perturb(some_images(seed=9), "random", seed=1)
    assert len(made) == 4


def test_a_victim_is_trained_once_and_comes_back_whole(images, monkeypatch):
    first = train_victim(images, some_images(seed=1), recipe="quick", seed=0, **SHORT)
    monkeypatch.setattr(victim, "epochs", None)
    again = train_victim(images, some_images(seed=1), recipe="quick", seed=0, **SHORT)
    assert again.history == first.history and again.record == first.record
    assert torch.equal(loop.features(again.model, images), loop.features(first.model, images))
    assert loop.accuracy(again.model, some_images(seed=1)) == first.accuracy <= first.best
    with pytest.raises(TypeError):
        train_victim(images, some_images(seed=1), recipe="quick", seed=1, **SHORT)


def test_perturbed_images_get_a_victim_of_their_own(images):
    test = some_images(seed=1)
    clean = train_victim(images, test, recipe="quick", **SHORT)
    noisy = train_victim(perturb(images, "random").apply(images), test, recipe="quick", **SHORT)
    assert clean.record["train"]["content_hash"] != noisy.record["train"]["content_hash"]
    assert not torch.equal(clean.model.head.weight, noisy.model.head.weight)


def test_a_damaged_victim_is_named(images, tmp_path):
    trained = train_victim(images, some_images(seed=1), recipe="quick", **SHORT)
    file = tmp_path / "v.safetensors"
    trained.save(file)
    assert Victim.load(file).accuracy == trained.accuracy
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"v\.safetensors is cut off or no file"):
        Victim.load(file)
    perturb(images, "random", cache=False).save(file)
    with pytest.raises(InputError, match=r"v\.safetensors holds no victim"):
        Victim.load(file)


def test_other_code_makes_another_key(images, monkeypatch):
    perturb(images, "random")
    monkeypatch.setattr(poisons, "code_hash", lambda module="miue": "other code")
    monkeypatch.setattr(poisons, "make", lambda *a: pytest.fail("made again, as it should be"))
    with pytest.raises(pytest.fail.Exception, match="as it should be"):
        perturb(images, "random")


def test_a_defense_and_a_start_make_a_victim_of_their_own(images):
    test = some_images(seed=1)
    first = train_victim(images, test, recipe="quick", **SHORT)
    defended = train_victim(images, test, recipe="quick", defense=defenses.build("iss:kind=grayscale"), **SHORT)
    again = train_victim(images, test, recipe="quick", defense=defenses.build("iss:kind=bit_depth"), **SHORT)
    weights = [v.model.head.weight for v in (first, defended, again)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert defended.record["defense"]["kind"] == "grayscale" and first.record["defense"] is None


def test_a_start_gives_its_weights_and_only_its_features_to_other_classes(images):
    test = some_images(seed=1)
    first = train_victim(images, test, recipe="quick", **SHORT)
    still = {"recipe": "quick", "epochs": 1, "lr": 1e-12, "batch": 16, "weight_decay": 0.0, "precision": "float32"}
    went_on = train_victim(images, test, start=first, seed=5, **still)
    assert torch.allclose(went_on.model.head.weight, first.model.head.weight, atol=1e-6)
    assert went_on.record["start"]["seed"] == 0
    three, three_test = some_images(classes=3), some_images(classes=3, seed=1)
    other = train_victim(three, three_test, start=first, seed=5, **still)
    conv = other.model.body[0].weight
    assert torch.allclose(conv, first.model.body[0].weight, atol=1e-6) and other.model.head.weight.shape == (3, 64)
    with pytest.raises(InputError, match="start: a small_resnet; it must be a linear, as the victim is"):
        train_victim(images, test, model="linear", start=first, **still)


CELL = """
import math
from dataclasses import dataclass
import torch
from miue.defenses import Defense
from miue.poisons.base import Made
from miue.poisons.base import blank
from miue.poisons.methods.random import Random

@dataclass(frozen=True)
class Dimmed(Defense):
    def batch(self, x, y, moment):
        return x.float() / 255 * {factor}, y

def body(channels, size, width):
    layer = torch.nn.Linear(channels * math.prod(size), 3)
    layer.weight.data *= {factor}
    return torch.nn.Sequential(torch.nn.Flatten(), layer), 3

def method(task):
    return Made(blank(task.images) + int(4 * {factor}), {{}})
"""


def cell(factor, module):
    """What a notebook's cell, or a module of another package, defines."""
    scope = {"__name__": module}
    exec(CELL.format(factor=factor), scope)
    return scope


@pytest.mark.parametrize("module", ["__main__", "lab.train", "builtins"])
def test_an_edited_defense_network_or_method_of_somebody_else_is_never_yesterdays(images, module, monkeypatch, capsys):
    def results(factor):
        own = cell(factor, module)
        monkeypatch.setitem(models.MODELS, "own", own["body"])
        monkeypatch.setitem(poisons.METHODS, "own", poisons.Method(own["method"], poisons.METHODS["random"].presets))
        how = {"recipe": "quick", **SHORT}
        made = perturb(images, "own", preset="quick").delta.sum()
        plain = train_victim(images, images, model="own", **how)
        behind = train_victim(images, images, model="linear", defense=own["Dimmed"](), **how)
        return [float(made), plain.history[0].loss, behind.history[0].loss]

    first = results(0.5)
    assert capsys.readouterr().err.count("made anew and not kept") == 3
    assert all(one != other for one, other in zip(first, results(1.0), strict=True))
    assert first == results(0.5)
    assert not list(cache_dir().rglob("*.safetensors"))
    own = cell(0.5, module)["Dimmed"]()
    assert (
        find_victim(images, images, **STRANGER | {"model": "linear", "recipe": "quick", "defense": own}, **SHORT)
        is None
    )


def test_two_avatars_whose_models_share_a_name_have_victims_of_their_own(images):
    one, other = (Avatar(lambda x, step, f=f: f * x, depth=500, steps=1, eta=0.0) for f in (0.0, 1.0))
    assert one.record() == other.record()
    how = {"model": "linear", "recipe": "quick", **SHORT}
    losses = [train_victim(images, images, defense=avatar, **how).history[0].loss for avatar in (one, other)]
    assert losses[0] != losses[1] and not list(cache_dir().rglob("*.safetensors"))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_another_number_of_threads_counts_only_where_that_is_asked_for(images, threads, monkeypatch, capsys):
    how = {"model": "linear", "recipe": "quick", **SHORT}
    threads(1)
    made = perturb(images, "random"), train_victim(images, images, **how)
    threads(2)
    assert find_perturbation(images, "random", **ASKED) is None
    assert find_victim(images, images, **STRANGER | how) is None
    monkeypatch.setenv("MIUE_ANY_THREADS", "1")
    found = perturb(images, "random"), train_victim(images, images, **how)
    assert [one.record for one in found] == [one.record for one in made]
    assert all(one.record["device"].endswith(", 1 threads") for one in found)
    assert "perturbation random: from the cache, where 1 threads made it" in capsys.readouterr().err
    assert len(list(cache_dir().rglob("*.safetensors"))) == 2
    monkeypatch.setenv("MIUE_ANY_THREADS", "0")
    assert train_victim(images, images, **how).record["device"].endswith(", 2 threads")
    monkeypatch.setenv("MIUE_ANY_THREADS", "1")
    assert train_victim(images, images, **how).record["device"].endswith(", 2 threads")  # its own comes first


def test_whether_threads_count_is_said_as_0_or_1(images, monkeypatch):
    monkeypatch.setenv("MIUE_ANY_THREADS", "yes")
    with pytest.raises(InputError, match="MIUE_ANY_THREADS: 'yes' does not exist; choose one of 0, 1"):
        perturb(images, "random")
