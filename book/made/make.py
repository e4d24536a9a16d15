"""Make what the chapters read from this folder: perturbations of Digits-M, and victims trained on them.

    python book/made/make.py

Half an hour on one core. Each file tells in its header how, when and on what machine it was made.
"""

from dataclasses import replace
from pathlib import Path

import torch

import miue

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
