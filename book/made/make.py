"""Make what the chapters read from this folder: perturbations of Digits-M, and victims trained on them.

    python book/made/make.py

An hour on one core. Each file tells in its header how, when and on what machine it was made.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import torch

import miue
from miue.storage import provenance

HERE = Path(__file__).parent

train, test = miue.load("digits_m")
poisons = {method: miue.perturb(train, method, preset="quick", passes=60, seed=0) for method in ("em", "mi_ue")}
random = miue.perturb(train, "random", preset="quick", seed=0)
quarter = replace(poisons["mi_ue"], delta=(poisons["mi_ue"].delta.float() / 4).round().to(torch.int8))
published = {"clean": train, "mi_ue-quarter": quarter.apply(train)}
published |= {method: poison.apply(train) for method, poison in (poisons | {"random": random}).items()}

for method, poison in poisons.items():
    poison.save(HERE / f"{method}.safetensors")
for name, images in published.items():
    miue.train_victim(images, test, recipe="quick", seed=0).save(HERE / f"victim-{name}.safetensors")

# Is the content lost when it was learned before? Victims of the perturbed images once more, from random weights and
# from those of the clean victim, at two rates.
clean = miue.Victim.load(HERE / "victim-clean.safetensors")
rows = []
for seed, rate, method in itertools.product((1, 2), (0.1, 0.01), poisons):
    for name, start in (("random weights", None), ("the clean victim", clean)):
        how = {"recipe": f"quick:lr={rate}", "seed": seed, "start": start, "cache": False}
        curve = [epoch.test_accuracy for epoch in miue.train_victim(published[method], test, **how).history]
        rows.append({"method": method, "start": name, "rate": rate, "seed": seed, "test_accuracy": curve})
images = {method: published[method].content_hash for method in poisons}
order = {"made": provenance.collect(), "images": images, "start": clean.accuracy, "rows": rows}
(HERE / "order.json").write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
