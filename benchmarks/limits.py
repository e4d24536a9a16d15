"""What the paper leaves out, measured: classes of different sizes, sets of labels, no labels, captions.

    python benchmarks/limits.py DATA [PART ...]

DATA holds the CIFAR-10 copy and imagenette224. Rows go to book/results/records, one line each; what is there is not
measured again. What several parts perturb alike comes from the cache.

Parts: unbalanced (accuracy by class), sets (mean average precision), unlabelled (victims without labels), captions
(retrieval), photographs (retrieval by captions of Imagenette),
sharpnesses (of every layer after every third epoch).
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import Measured
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import miue
from miue import seeds
from miue.data.images import Images
from miue.mi.bounds import prediction_disagreement
from miue.models import Network
from miue.models.heads import Captions, LabelSets, label_sets, recall, with_head
from miue.poisons.measures import visibility
from miue.training import epochs, recipe
from miue.training.contrastive import OBJECTIVES, pretrained
from miue.training.sharpness import sharpness

ROWS = Path("book/results/records/limits.jsonl")
NETWORK = "small_resnet:width=0.5"
RECIPE, COUNT, FEWER = "quick", 3000, 2000  # of images
LONGER = "quick:epochs=30"  # in fifteen epochs clean victims hardly fit sets, captions and small classes
SEEDS = (0, 1)

Answers = Callable[[Images], np.ndarray]


class Bench(Measured):
    """The rows, and the images of a data set as they were loaded last."""

    def __init__(self, data: Path) -> None:
        super().__init__(ROWS)
        self.load = cache(partial(miue.load, root=data))

    def meet(
        self,
        images: Images,
        methods: tuple[str, ...],
        seeds: tuple[int, ...],
        learned: Callable[[Images, int], dict[str, Any]],
        surrogate: Any = NETWORK,
        **row: Any,
    ) -> None:
        """Let a victim learn from images under each method, and from clean ones."""
        for seed in seeds:
            for method in ("clean", *methods):
                row |= {"data": images.name, "n": len(images), "method": method, "seed": seed}
                self.measure(partial(shown, images, method, seed, surrogate, learned), **row)


def shown(
    images: Images, method: str, seed: int, surrogate: Any, learned: Callable[[Images, int], dict[str, Any]]
) -> dict[str, Any]:
    """Perturb images, unless they stay clean, and say what is learned from them."""
    if method == "clean":
        return learned(images, seed)
    how = {"surrogate": surrogate, "preset": "quick", "passes": 60, "seed": seed}
    poison = miue.perturb(images, method, **how)
    published = poison.apply(images)
    told = {"passes": poison.record["passes"], "perturbation_seconds": round(poison.record["seconds"], 1)}
    return learned(published, seed) | told | visibility(images, published)


def by_class(model: Network, images: Images) -> list[float]:
    """Accuracy on the images of each class."""
    hits = model.head(miue.features(model, images)).argmax(1) == images.y
    return [round(float(hits[images.y == label].float().mean()), 4) for label in range(len(images.classes))]


def unbalanced(bench: Bench) -> None:
    """Long tails of three lengths, two sets, and a loss or batches that know of them."""
    methods, balanced = ("random", "em", "mi_ue"), ("mi_ue:balance=loss", "mi_ue:balance=batches")
    steps = -(-FEWER // 128)  # of an epoch, as many as on the whole set: few images are no short training

    def learned(test: Images, images: Images, seed: int) -> dict[str, Any]:
        how = {"model": NETWORK, "recipe": LONGER, "batches_per_epoch": steps}
        model = miue.train_victim(images, test, seed=10 + seed, **how)
        return {"accuracy": model.accuracy, "by_class": by_class(model.model, test)}

    for data, n_test in (("digits_m", 1000), ("cifar10", 2000)):
        for ratio in (1, 10, 50):
            train, test = bench.load(f"{data}:tail={ratio}", n_train=FEWER, n_test=n_test)
            counts = train.y.bincount().tolist()
            tried = methods + balanced * (ratio > 1)  # in classes of one size they change nothing
            row = {"part": "unbalanced", "ratio": ratio, "counts": counts, "recipe": LONGER}
            bench.meet(train, tried, SEEDS, partial(learned, test), **row)


def precision(model: Network, images: Images) -> float:
    """Mean average precision over the labels, in [0, 1]."""
    head, features = model.head, miue.features(model, images)
    assert isinstance(head, LabelSets)
    there = label_sets(images.classes)[1][images.y]
    return float(average_precision_score(there.numpy(), head.of_labels(features).detach().numpy(), average="macro"))


def sets(bench: Bench) -> None:
    """Two digits in an image, each a label."""
    train, test = bench.load("digits_m:labels=pairs", n_train=COUNT, n_test=1000)
    network = with_head(NETWORK, LabelSets, train.classes)

    def learned(images: Images, seed: int) -> dict[str, Any]:
        trained = miue.train_victim(images, test, model=network, recipe=LONGER, seed=10 + seed)
        told = {"accuracy": trained.accuracy, "precision": precision(trained.model, test)}
        return told | {"train_precision": precision(trained.model, images)}

    methods = ("random", "em", "mi_ue", "mi_ue:sets=true", "lsp")
    bench.meet(train, methods, SEEDS, learned, network, part="sets", recipe=LONGER)


def untrained(images: Images, seed: int) -> Network:
    """A network as the victim that meets a perturbation of this seed begins."""
    return miue.models.build(NETWORK, len(images.classes), seed=seeds.victim(10 + seed).weights)


def probed(network: Network, images: Images, test: Images) -> float:
    """Accuracy of a linear classifier on the features of a network, fitted on these images."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    linear.fit(miue.features(network, images).numpy(), images.y.numpy())
    return float(linear.score(miue.features(network, test).numpy(), test.y.numpy()))


def unlabelled(bench: Bench) -> None:
    """Victims that learn without labels, and one with, before perturbations made with labels and without.

    Each is probed by a classifier that sees the images as published, and by one that sees the clean ones: the second
    tells what the features are worth, the first what the perturbation does to the classifier as well. A network that
    was not trained shows what the classifier does alone.
    """
    methods = ("random", "em", "mi_ue", "tap", "lsp", "tue", "tue:separability=0", "aue", "aap", "weave")
    train, test = bench.load("cifar10", n_train=COUNT, n_test=2000)

    def learned(images: Images, seed: int) -> dict[str, Any]:
        trained = miue.train_victim(images, test, model=NETWORK, recipe=RECIPE, seed=10 + seed)
        networks = {"untrained": untrained(images, seed).eval(), "with_labels": trained.model}
        for objective in OBJECTIVES:
            networks[objective] = pretrained(images, model=NETWORK, objective=objective, epochs=40, seed=10 + seed)
        told = {"accuracy": trained.accuracy}
        for name, network in networks.items():
            told |= {name: probed(network, images, test), f"{name}_clean": probed(network, train, test)}
        return told

    bench.meet(train, methods, SEEDS, learned, part="unlabelled")


def retrieved(train: Images, test: Images, methods: tuple[str, ...], bench: Bench, part: str, recipe: str) -> None:
    """Two towers before perturbations of images with captions."""
    network = with_head(NETWORK, Captions, train.classes)

    def learned(images: Images, seed: int) -> dict[str, Any]:
        trained = miue.train_victim(images, test, model=network, recipe=recipe, seed=10 + seed)
        told = {}
        for name, asked in (("", test), ("train_", images)):
            with torch.no_grad():
                scores = trained.model.head(miue.features(trained.model, asked))
            for k in (1, 5):
                told[f"{name}to_text_{k}"], told[f"{name}to_image_{k}"] = recall(scores, asked.y, k)
        return told

    bench.meet(train, methods, SEEDS, learned, network, part=part, recipe=recipe, captions=len(train.classes))


def captions(bench: Bench) -> None:
    """Captions that tell digit, photograph and place."""
    train, test = bench.load("digits_m:labels=captions", n_train=COUNT, n_test=1000)
    methods = ("random", "em", "mi_ue", "mi_ue:sets=true", "lsp")
    retrieved(train, test, methods, bench, "captions", f"{LONGER}:lr=0.05")


def photographs(bench: Bench) -> None:
    """Captions by a template, a class of Imagenette each."""
    names = ("tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
             "gas pump", "golf ball", "parachute")  # fmt: skip
    parts = bench.load("folder:imagenette224", size=64, n_train=2000, n_test=1000)
    told = [f"a photograph of a {name}" for name in names]
    train, test = (Images(part.x, part.y, told, name=f"{part.name}, captions", layout="nchw") for part in parts)
    retrieved(train, test, ("random", "em", "mi_ue"), bench, "photographs", "quick:epochs=20:lr=0.05")


def sharpnesses(bench: Bench) -> None:
    """How many layers still learn, by sharpness, beside how many answers change."""
    train, test = bench.load("cifar10", n_train=COUNT, n_test=2000)

    def learned(images: Images, seed: int) -> dict[str, Any]:
        network = untrained(images, seed)
        some, by_epoch = images.subset(torch.arange(0, len(images), 12)), []
        for done in epochs(network, images, recipe(RECIPE), seed=10 + seed, device="cpu"):
            if done.epoch % 3 == 0:
                by_epoch.append(sharpness(network, some, steps=5))
        answers = [network.head(miue.features(network, shown)).argmax(1) for shown in (train, images)]
        return {
            "accuracy": miue.accuracy(network, test),
            "disagreement": prediction_disagreement(*answers),
            "sharpness": by_epoch,
        }

    methods = ("random", "em", "mi_ue", "mi_ue:objective=information", "tap", "lsp")
    bench.meet(train, methods, SEEDS, learned, part="sharpness", victim=NETWORK)


PARTS = {part.__name__: part for part in (unbalanced, sets, unlabelled, captions, photographs, sharpnesses)}

if __name__ == "__main__":
    bench = Bench(Path(sys.argv[1]))
    for name in sys.argv[2:] or PARTS:
        PARTS[name](bench)
