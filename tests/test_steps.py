import pytest
import torch
from samples import pictures

from miue import poisons, steps, train
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
    with pytest.raises(InputError, match=r"v\.safetensors is missing or damaged"):
        Victim.load(file)


def test_other_code_makes_another_key(images, monkeypatch):
    perturbation("random", images)
    monkeypatch.setattr(steps.store, "code_hash", lambda module="miue": "other code")
    monkeypatch.setattr(poisons, "make", lambda *a: pytest.fail("made again, as it should be"))
    with pytest.raises(pytest.fail.Exception, match="as it should be"):
        perturbation("random", images)
