"""TUE: transferable unlearnable examples.

Ren, Xu, Wan, Ma, Sun & Tang, "Transferable Unlearnable Examples", ICLR 2023. Two losses shape delta: the contrastive
loss of a surrogate that learns without labels, so that victims without labels are met too, and the class-wise
separability discriminant (CSD) of delta itself: how wide the classes of perturbations are for the distance of their
centres. Rounds of contrastive training on the perturbed images alternate with sign-gradient descent on both.

`contrastive=0`, what the commands printed by the authors for SimCLR do, leaves the CSD alone: no network takes part.
Ours rather than published: views differ by less (`miue.training.contrastive`), and each round trains on a fresh random
share of the images. The CSD passes gradients on through the distances of centres only, as in the authors' code: with
those of the widths, it shrinks delta instead of spreading it (mean size 4.1 of 8 levels instead of 7.7, on 1,000
images of Digits-M).

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 59, a quarter-width VGG-11 60, a two-layer perceptron
44 and a linear network 32 %, where clean training has 59, 61, 45 and 34 %. With the CSD alone and without flips and
crops the small_resnet has 11 %, after clean training 51 %. paper: published victims have 11.3 / 1.3 / 5 % on CIFAR-10,
CIFAR-100 and ImageNet-100; not measured here.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from miue import seeds
from miue.errors import Count, InputError, NotNegative, Positive, Range, Share, Unit, Whole
from miue.models.frozen import Frozen
from miue.pgd import pgd
from miue.poisons.base import Made, Options, Task, uniform
from miue.poisons.passes import ROUNDINGS, Loss, balanced_batches, on_outputs, put
from miue.training.contrastive import Projecting, nt_xent, train_round, two_views


@dataclass(frozen=True)
class TUE(Options):
    """Options of TUE.

    Args:
        rounds: of surrogate training and a pgd pass over all images.
        share: of the images that the surrogate trains on in a round, above 0 and at most 1.
        steps: sign-gradient steps of each pgd pass.
        step: their length, as a fraction of the pixel range.
        batch: images that share a loss, in training and in the pgd pass; at least 4.
        contrastive: weight of the contrastive loss, 0 or above; with 0 there is no surrogate.
        separability: weight of the CSD, 0 or above.
        temperature: of the contrastive loss.
        lr, weight_decay: of Adam, which trains the surrogate.
        rounding: one of `miue.poisons.passes.ROUNDINGS`.
        crop, jitter: how much two views of an image differ, `miue.training.contrastive.two_views`.
    """

    rounds: Count
    share: Share
    steps: Count
    step: Share
    batch: Annotated[int, Range(4)] = 512
    contrastive: NotNegative = 1.0
    separability: NotNegative = 0.1
    temperature: Positive = 0.5
    lr: Positive = 1e-3
    weight_decay: NotNegative = 1e-6
    crop: Whole = 4
    jitter: Unit = 0.4
    rounding: Annotated[str, ROUNDINGS] = "once"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrastive == self.separability == 0:
            raise InputError("contrastive: 0, separability: 0; at least one must be above 0")

    @property
    def passes(self) -> float:
        """Passes over the data, two views each; without the contrastive loss no network is passed."""
        return 2 * self.rounds * (self.share + self.steps) if self.contrastive else 0.0


# Many short rounds: batches are drawn anew in each, and only so do all images of a class agree on one perturbation.
_QUICK = TUE(rounds=9, share=0.5, steps=1, step=4 / 255)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, rounds=20, steps=2),
    "paper": TUE(rounds=200, share=0.2, steps=20, step=0.8 / 255),
}


def class_separability(delta: Tensor, labels: Tensor) -> Tensor:
    """The class-wise separability discriminant, small where classes are narrow and far apart.

    mean over classes i != j of (s_i + s_j) / |c_i - c_j|_2, with c_i the mean perturbation of class i and s_i the
    mean Euclidean distance to it: a Davies-Bouldin index over all pairs. 1e-5 is added above and below, and the
    s_i pass no gradient on, as in the authors' code.

    Args:
        delta: (B, ...) float perturbations, compared by pixels.
        labels: (B,) int64.

    Returns:
        Scalar >= 0, unchanged when delta is scaled; 0 where there is one class only.
    """
    flat = delta.flatten(1)
    classes, group = labels.unique(return_inverse=True)
    if len(classes) < 2:
        return 0 * flat.sum()
    share = F.one_hot(group).to(flat.dtype)
    share = (share / share.sum(0)).T  # (classes, B): row i takes the mean over class i
    centres = share @ flat
    with torch.no_grad():
        spread = share @ (flat - centres[group]).norm(dim=1)
    ratio = (spread[:, None] + spread + 1e-5) / (torch.cdist(centres, centres) + 1e-5)
    return ratio[~torch.eye(len(classes), dtype=torch.bool, device=ratio.device)].mean()


def tue(task: Task) -> Made:
    """Generate a TUE perturbation; the notes hold one row per round, with the CSD of one batch from all classes."""
    options: TUE = task.options
    images, budget, keep = task.images, task.budget, task.keep
    order, draws = task.stream("pgd order"), task.stream("perturbation")
    learning = task.stream("surrogate order"), task.stream("surrogate augmentation")
    delta = uniform(images, budget, draws, torch.float16)
    poisoned = images.plus(delta)
    probe = balanced_batches(images.y, options.batch, order)[0].to(images.device)
    projection = seeds.derived(task.seed, "surrogate projection")
    network = Projecting(task.network(), projection).to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), options.lr, weight_decay=options.weight_decay)

    def contrast(projections: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return nt_xent(projections, options.temperature)

    frozen = Frozen(network)
    contrasted = on_outputs(frozen, contrast)
    trace: list[dict[str, float]] = []
    keep.hold(delta=delta, network=network, optimizer=optimizer, order=order, draws=draws, trace=trace)
    keep.hold(surrogate_order=learning[0], surrogate_augmentation=learning[1])
    for number in task.track(range(keep.restore() + 1, options.rounds + 1), "rounds"):
        row: dict[str, float] = {"round": number}
        if options.contrastive:
            row["surrogate_loss"] = train_round(
                network,
                poisoned,
                optimizer,
                partial(nt_xent, temperature=options.temperature),
                partial(two_views, crop=options.crop, jitter=options.jitter, generator=learning[1]),
                batch=options.batch,
                share=options.share,
                order=learning[0],
            )
        frozen.refresh()
        _pass(task, delta, contrasted, order, draws)
        some = delta[probe.to(delta.device)].to(images.device)
        row["separability"] = float(class_separability(some.float(), images.y[probe]))
        trace.append(row)
        keep.save(number)
    return Made(delta, {"rounds": trace})


def _pass(task: Task, delta: Tensor, contrast: Loss, order: torch.Generator, draws: torch.Generator) -> None:
    """Improve `delta` in place, once for every image, by descent on both losses.

    Not `miue.poisons.passes.PGDPass`, because the CSD is a function of delta and not of the perturbed image.
    """
    options: TUE = task.options
    for index in balanced_batches(task.images.y, options.batch, order):
        x, y = task.images.batch(index)
        clean = x.float() / 255

        def loss(perturbed: Tensor, labels: Tensor, clean: Tensor = clean) -> Tensor:
            total = options.separability * class_separability(perturbed - clean, labels)
            if options.contrastive:
                views = two_views(perturbed, crop=options.crop, jitter=options.jitter, generator=draws)
                total = total + options.contrastive * contrast(views, labels)
            return total

        start = delta[index.to(delta.device)].to(x.device)
        moved = pgd(loss, x, y, start, budget=task.budget, step=options.step, steps=options.steps)
        put(delta, index, moved.round() if options.rounding == "each_pass" else moved)
