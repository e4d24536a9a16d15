import pytest
import torch
from samples import pictures

from miue import defenses, poisons, steps, train
from miue.errors import InputError
from miue.steps import Victim, perturbation, victim

SHORT = {"epochs": 2, "batch": 16, "precision": "float32"}


def test_a_perturbation_is_made_once_and_found_by_all_that_determines_it(images, monkeypatch):
    first = perturbation("random", images, seed=1)
    made = []
    monkeypatch.setattr(poisons, "make", lambda *a: made.append(a[-1]) or first)
    assert torch.equal(perturbation("random", images, seed=1).delta, first.delta)
    assert made == []
    for change in ({"seed": 2}, {"epsilon": 4 / 255}, {"kind": "sign"}):
        perturbation("random", images, **{"seed": 1, **change})
    perturbation("random", pictures(seed=9), seed=1)
    assert len(made) == 4


def test_a_victim_is_trained_once_and_comes_back_whole(images, monkeypatch):
    first = victim(images, pictures(seed=1), recipe="quick", seed=0, **SHORT)
    monkeypatch.setattr(train, "epochs", None)
    again = victim(images, pictures(seed=1), recipe="quick", seed=0, **SHORT)
    assert again.history == first.history and again.record == first.record
    assert torch.equal(train.features(again.model, images), train.features(first.model, images))
    assert train.accuracy(again.model, pictures(seed=1)) == first.last <= first.best
    with pytest.raises(TypeError):
        victim(images, pictures(seed=1), recipe="quick", seed=1, **SHORT)


def test_perturbed_pictures_get_a_victim_of_their_own(images):
    test = pictures(seed=1)
    clean = victim(images, test, recipe="quick", **SHORT)
    noisy = victim(perturbation("random", images).apply(images), test, recipe="quick", **SHORT)
    assert clean.record["train"]["content_hash"] != noisy.record["train"]["content_hash"]
    assert not torch.equal(clean.model.head.weight, noisy.model.head.weight)


def test_a_damaged_victim_is_named(images, tmp_path):
    trained = victim(images, pictures(seed=1), recipe="quick", **SHORT)
    file = tmp_path / "v.safetensors"
    trained.save(file)
    assert Victim.load(file).last == trained.last
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"v\.safetensors is cut off or no file"):
        Victim.load(file)


def test_other_code_makes_another_key(images, monkeypatch):
    perturbation("random", images)
    monkeypatch.setattr(steps.store, "code_hash", lambda module="miue": "other code")
    monkeypatch.setattr(poisons, "make", lambda *a: pytest.fail("made again, as it should be"))
    with pytest.raises(pytest.fail.Exception, match="as it should be"):
        perturbation("random", images)


def test_a_defense_and_a_start_make_a_victim_of_their_own(images):
    test = pictures(seed=1)
    first = victim(images, test, recipe="quick", **SHORT)
    defended = victim(images, test, recipe="quick", defense=defenses.build("iss:kind=grayscale"), **SHORT)
    again = victim(images, test, recipe="quick", defense=defenses.build("iss:kind=bit_depth"), **SHORT)
    weights = [v.model.head.weight for v in (first, defended, again)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert defended.record["defense"]["kind"] == "grayscale" and first.record["defense"] is None


def test_a_start_gives_its_weights_and_only_its_features_to_other_classes(images):
    test = pictures(seed=1)
    first = victim(images, test, recipe="quick", **SHORT)
    still = {"recipe": "quick", "epochs": 1, "lr": 1e-12, "batch": 16, "weight_decay": 0.0, "precision": "float32"}
    went_on = victim(images, test, start=first, seed=5, **still)
    assert torch.allclose(went_on.model.head.weight, first.model.head.weight, atol=1e-6)
    assert went_on.record["start"]["seed"] == 0
    three, three_test = pictures(classes=3), pictures(classes=3, seed=1)
    other = victim(three, three_test, start=first, seed=5, **still)
    conv = other.model.body[0].weight
    assert torch.allclose(conv, first.model.body[0].weight, atol=1e-6) and other.model.head.weight.shape == (3, 64)
    with pytest.raises(InputError, match="start: a small_resnet; it must be a linear, as the victim is"):
        victim(images, test, model="linear", start=first, **still)
