"""The perturbations and victims that the chapters read are what today's code would make of today's data."""

import json
from dataclasses import asdict, replace
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
    assert record["options"] == asdict(options(method, "quick", passes=60))
    assert (record["surrogate"], record["levels"], record["seed"]) == ("small_resnet", 8, 0)
    assert record["passes"] <= 60


@pytest.mark.parametrize("name", ["clean", "random", "em", "mi_ue", "mi_ue-quarter"])
def test_a_victim_was_trained_on_these_images_and_has_its_accuracy(name, digits, published):
    _, test = digits
    victim = miue.Victim.load(MADE / f"victim-{name}.safetensors")
    assert victim.record["train"]["content_hash"] == published[name].content_hash
    assert victim.record["options"] == asdict(recipe("quick")) and victim.record["seed"] == 0
    assert miue.accuracy(victim.model, test) == pytest.approx(victim.accuracy, abs=0.003)  # sums differ by processor


def test_victims_in_another_order_saw_these_images_and_began_as_is_said(published):
    order = json.loads((MADE / "order.json").read_text(encoding="utf-8"))
    assert order["images"] == {method: published[method].content_hash for method in ("em", "mi_ue")}
    assert order["start"] == miue.Victim.load(MADE / "victim-clean.safetensors").accuracy
    told = {(row["method"], row["start"], row["rate"], row["seed"]) for row in order["rows"]}
    starts = ("random weights", "the clean victim")
    assert told == {(m, s, r, n) for m in ("em", "mi_ue") for s in starts for r in (0.1, 0.01) for n in (1, 2)}
    assert {len(row["test_accuracy"]) for row in order["rows"]} == {recipe("quick").epochs}
