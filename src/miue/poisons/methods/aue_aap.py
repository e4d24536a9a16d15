"""AUE and AAP: error-minimising noise and adversarial poisons, made through the augmentations of contrastive learning.

Wang, Zhu & Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously", NeurIPS
2024. Who learns without labels compares views of an image: resized crops, mirrored, in other colours
(`miue.training.views`). Noise that is made for the plain image is lost in them. So both trainings here see one view of
each image instead of the image, and so does every step of a pgd pass; the loss stays a cross-entropy.

AUE: epochs of a surrogate on views of the perturbed images alternate with a pgd pass that lowers its loss on them, as
in EM. AAP: a surrogate is trained on views of the clean images; then each image is moved, from no perturbation, down
the loss to the *next* class, (y + 1) mod C, as in TAP, or up that to its own (`targeted=false`).

The presets "paper" cost 360 and 290 passes, with the strengths of the authors' commands for CIFAR-10, 0.6 and 0.4; for
CIFAR-100 they take 1 and 0.8. Ours rather than published: how views are drawn, the one-cycle schedule of AAP's
surrogate for a linear rise and a cosine, class-balanced batches of a pgd pass, and the small presets, which have fewer
epochs and, for AAP, fewer and longer steps. What the paper measured is not known to us in numbers. Measured with
`quick` and at most 60 passes on 3,000 images of CIFAR-10 (JPEG-75 copy), a half-width small_resnet as surrogate and
victim: AUE 24 % and behind JPEG of quality 10 44 % (one perturbation; clean images 53 and 46 %), AAP 17 and 35 % (two;
clean images 50 and 49 %).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from miue.errors import Count, Share, Unit
from miue.models.frozen import Frozen
from miue.poisons.base import Made, PgdOptions, Task, blank
from miue.poisons.methods.tap import loss_of_each
from miue.poisons.passes import Loss, Objective, cross_entropy, on_outputs
from miue.training.recipes import Recipe
from miue.training.views import Viewed, draw_views


@dataclass(frozen=True, kw_only=True)
class AUE(PgdOptions):
    """Options of AUE: those of `PgdOptions`, of which a pass follows each epoch of the surrogate, and

    Args:
        strength: of the views, in [0, 1].
    """

    steps: Count = 5
    step: Share = 0.8 / 255
    pass_batch: Count = 128
    strength: Unit = 0.6

    @property
    def passes(self) -> float:
        """Every epoch trains once and takes the steps of a pgd pass."""
        return self.surrogate.epochs * (1 + self.steps)


@dataclass(frozen=True, kw_only=True)
class AAP(PgdOptions):
    """Options of AAP: those of `PgdOptions`, and

    Args:
        strength: of the views, in [0, 1], in training and in the steps.
        targeted: lower the loss of the next class, or else raise that of the right one.
    """

    pass_batch: Count = 128
    strength: Unit = 0.4
    targeted: bool = True

    @property
    def passes(self) -> float:
        """Training, then the steps."""
        return self.surrogate.epochs + self.steps


_AUE = AUE(surrogate=Recipe(epochs=60, lr=0.1, schedule="cosine", weight_decay=1e-4, precision="float32"))
_AAP = AAP(
    surrogate=Recipe(epochs=40, lr=0.5, schedule="one_cycle", weight_decay=1e-4, precision="float32"),
    steps=250,
    step=0.08 / 255,
)

AUE_PRESETS = {
    "quick": replace(_AUE, surrogate=replace(_AUE.surrogate, epochs=10)),
    "laptop": replace(_AUE, surrogate=replace(_AUE.surrogate, epochs=27)),
    "paper": _AUE,
}
AAP_PRESETS = {
    "quick": replace(_AAP, surrogate=replace(_AAP.surrogate, epochs=20, lr=0.1), steps=40, step=0.5 / 255),
    "laptop": replace(_AAP, surrogate=replace(_AAP.surrogate, lr=0.1), steps=120, step=0.2 / 255),
    "paper": _AAP,
}


def aue(task: Task) -> Made:
    """Generate augmented unlearnable examples; the notes hold one row per surrogate epoch, measured on views."""
    options: AUE = task.options
    network = task.network()
    order, draws = task.stream("pgd order"), task.stream("perturbation")

    frozen = Frozen(network, options.surrogate.precision)
    pgd_pass = options.pgd_pass(task, _on_views(frozen, cross_entropy, options.strength, draws), order)
    seen = Viewed(options.strength)
    delta, trace = task.in_turns(network, pgd_pass, frozen.refresh, defense=seen, draws=draws)
    return Made(delta, {"epochs": trace})


def aap(task: Task) -> Made:
    """Generate augmented adversarial poisons; the notes hold one row per surrogate epoch, measured on views."""
    options: AAP = task.options
    images, keep = task.images, task.keep
    network = task.network()
    trace = task.learn(network, defense=Viewed(options.strength))

    def objective(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return loss_of_each(logits, labels, options.targeted).mean()

    draws = task.stream("perturbation")
    keep.hold(draws=draws)
    loss = _on_views(Frozen(network, options.surrogate.precision), objective, options.strength, draws)
    delta = blank(images, torch.float16)
    options.pgd_pass(task, loss, task.stream("pgd order"))(delta, options.step, keep)
    return Made(delta, {"epochs": trace})


def _on_views(frozen: Frozen, objective: Objective, strength: float, draws: torch.Generator) -> Loss:
    """The loss of one view of each image, drawn anew whenever it is asked for."""
    on_images = on_outputs(frozen, objective)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        return on_images(draw_views(x, strength=strength, generator=draws), labels)

    return loss
