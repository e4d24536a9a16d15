"""Make what the chapters read from this folder: perturbations of Digits-M, and victims trained on them.

    python book/made/make.py

Each perturbation and each victim takes minutes on one core. Each file tells how, when and on what machine it was made.
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

# What the last chapter tries, with two seeds: perturbations dealt out anew, and victims that begin as the clean one.
clean = miue.Victim.load(HERE / "victim-clean.safetensors")
starts = {"random weights": None, "the clean victim": clean}
trials = []


def try_out(images: miue.Images, method: str, dealt: str, start: str, rate: float, seed: int) -> None:
    """Train a victim, and keep its accuracies by epoch."""
    how = {"recipe": f"quick:lr={rate}", "seed": seed, "start": starts[start], "cache": False}
    epochs = miue.train_victim(images, test, **how).history
    curves = {name: [getattr(epoch, name) for epoch in epochs] for name in ("train_accuracy", "test_accuracy")}
    about = {"method": method, "dealt": dealt, "start": start, "rate": rate, "seed": seed}
    trials.append(about | curves)


for seed in (1, 2):
    for rate, method, start in itertools.product((0.1, 0.01), ("mi_ue", "em"), starts):
        try_out(published[method], method, "in their places", start, rate, seed)
    for method in ("clean", "random"):
        try_out(published[method], method, "in their places", "the clean victim", 0.1, seed)
    for method in ("mi_ue", "em"):
        draw = torch.Generator().manual_seed(seed)
        over_all = torch.randperm(len(train), generator=draw)
        within = torch.empty_like(over_all)
        for label in range(len(train.classes)):
            own = (train.y == label).nonzero()[:, 0]
            within[own] = own[torch.randperm(len(own), generator=draw)]
        for dealt, donor in (("within classes", within), ("over all images", over_all)):
            images = train.plus(poisons[method].delta[donor])
            try_out(images, method, dealt, "random weights", 0.1, seed)

images = {method: published[method].content_hash for method in ("clean", "random", *poisons)}
answer = {"made": provenance.collect(), "images": images, "start": clean.accuracy, "trials": trials}
(HERE / "answer.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
