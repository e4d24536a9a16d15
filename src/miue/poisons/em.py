"""EM: error-minimising noise.

Huang, Ma, Erfani, Bailey & Wang, "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021: rounds of a
few training batches of a source network on the perturbed pictures, then sign-gradient descent on its cross-entropy
over all of them, until the perturbed pictures are all but fitted.

What the presets bring, with small_resnet as source and victim on two cores of an AMD EPYC:

- quick: Digits-M, 3,000 pictures: victim 7 % where the clean one has 89 %; 65 s (one seed).
- laptop: CIFAR-10 (JPEG-75 copy), 4,000 pictures: victim 10 to 18 % where the clean one has 60 %; about 350 s
  (three seeds).
- paper: for ResNet-18 and 50,000 pictures on a GPU; published victims have 21 to 24 %. Not measured here.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from miue import train
from miue.errors import require_positive
from miue.images import Images
from miue.pgd import Budget
from miue.poisons.base import Made, source_network, sweep
from miue.progress import track


@dataclass(frozen=True)
class EM:
    """Options of EM (sample-wise).

    Args:
        source: how the source network is trained; its epochs are the largest number of rounds.
        steps: sign-gradient steps of each round.
        step: their length, as a fraction of the pixel range.
        sweep_batch: pictures in a batch of the sweep.
        stop_accuracy: end when the source network's accuracy on the perturbed pictures exceeds it, in [0, 1].
    """

    source: train.Recipe
    steps: int = 20
    step: float = 0.8 / 255
    sweep_batch: int = 256
    stop_accuracy: float = 0.99

    def __post_init__(self) -> None:
        require_positive(self, "steps", "step", "sweep_batch", "stop_accuracy")


_SOURCE = train.Recipe(epochs=10, lr=0.1, schedule="constant", clip_norm=5.0, batches_per_epoch=10, precision="float32")

PRESETS = {
    "quick": EM(source=_SOURCE, steps=10),
    "laptop": EM(source=replace(_SOURCE, epochs=20)),
    "paper": EM(source=replace(_SOURCE, epochs=100), sweep_batch=512),
}


def em(images: Images, model: str, budget: Budget, options: EM, seed: int) -> Made:
    """Generate error-minimising noise; the notes hold one row per round and why the rounds ended."""
    delta = torch.zeros(len(images), *images.shape, dtype=torch.int8, device=images.device)
    poisoned = images.plus(delta)
    network = source_network(model, images, seed)
    generator = torch.Generator().manual_seed(seed)

    def objective(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    rounds = []
    trained = train.epochs(network, poisoned, options.source, seed=seed, device=images.device)
    for done in track(trained, "EM, rounds at most", options.source.epochs):
        sweep(
            network,
            images,
            delta,
            objective,
            batch=options.sweep_batch,
            budget=budget,
            step=options.step,
            steps=options.steps,
            generator=generator,
        )
        fitted = train.accuracy(network, poisoned)
        rounds.append({"round": done.epoch, "source_loss": done.loss, "accuracy_on_perturbed": fitted})
        if fitted > options.stop_accuracy:
            return Made(delta, {"rounds": rounds, "stopped_by": "accuracy"})
    return Made(delta, {"rounds": rounds, "stopped_by": "number of rounds"})
