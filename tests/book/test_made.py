"""The perturbations and victims that the chapters read are what today's code would make of today's data."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

import miue
from miue.poisons import options
from miue.training import recipe

MADE = Path(__file__).parents[2] / "book" / "made"


@pytest.fixture(scope="module")
def digits():
    return miue.load("digits_m")


@pytest.fixture(scope="module")
def published(digits):
    train, _ = digits
    poisons = {m: miue.Poison.load(MADE / f"{m}.safetensors") for m in ("em", "mi_ue")}
    poisons["random"] = miue.perturb(train, "random", preset="quick", seed=0, cache=False)
    quarter = (poisons["mi_ue"].delta.float() / 4).round().to(torch.int8)
    poisons["mi_ue-quarter"] = replace(poisons["mi_ue"], delta=quarter)
    return {"clean": train} | {m: poison.apply(train) for m, poison in poisons.items()}


@pytest.mark.parametrize("method", ["em", "mi_ue"])
def test_a_perturbation_has_the_options_of_today(method):
    record = miue.Poison.load(MADE / f"{method}.safetensors").record
    today = options(method, "quick", passes=60)
    assert record["options"].items() <= asdict(today).items()
    since = [field for field in fields(today) if field.name not in record["options"]]
    assert [getattr(today, field.name) for field in since] == [field.default for field in since]  # nothing was asked
    assert (record["surrogate"], record["levels"], record["seed"]) == ("small_resnet", 8, 0)
    assert record["passes"] <= 60


@pytest.mark.parametrize("name", ["clean", "random", "em", "mi_ue", "mi_ue-quarter"])
def test_a_victim_was_trained_on_these_images_and_has_its_accuracy(name, digits, published):
    _, test = digits
    victim = miue.Victim.load(MADE / f"victim-{name}.safetensors")
    assert victim.record["train"]["content_hash"] == published[name].content_hash
    assert victim.record["options"] == asdict(recipe("quick")) and victim.record["seed"] == 0
    assert miue.accuracy(victim.model, test) == pytest.approx(victim.accuracy, abs=0.003)  # sums differ by processor


def test_what_the_last_chapter_tried_was_made_of_these_images(published):
    answer = json.loads((MADE / "answer.json").read_text(encoding="utf-8"))
    assert answer["images"] == {name: published[name].content_hash for name in ("clean", "random", "em", "mi_ue")}
    assert answer["start"] == miue.Victim.load(MADE / "victim-clean.safetensors").accuracy
    told = [(one["method"], one["dealt"], one["start"], one["rate"], one["seed"]) for one in answer["trials"]]
    home, fresh, learned = "in their places", "random weights", "the clean victim"
    asked = [(m, home, start, rate) for m in ("em", "mi_ue") for start in (fresh, learned) for rate in (0.1, 0.01)]
    asked += [(m, home, learned, 0.1) for m in ("clean", "random")]
    asked += [(m, dealt, fresh, 0.1) for m in ("em", "mi_ue") for dealt in ("within classes", "over all images")]
    assert sorted(told) == sorted((*one, seed) for one in asked for seed in (1, 2))
    assert {len(one["test_accuracy"]) for one in answer["trials"]} == {recipe("quick").epochs}
