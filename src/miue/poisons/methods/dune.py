"""DUNE: dual-branch perturbations, an adversarial one for each image and a colour for each class; no budget.

Wang, Zhang, Pan, Zhou, Jiang, Zeng & Jia, "Dual-branch Robust Unlearnable Examples", ICML 2026. Both branches tie the
images of class y to class (y + 3) mod C, for an ensemble: one surrogate as it stood at several moments of its training
on the clean images, evenly apart. In space, sign-gradient steps within the budget lower the mean of the ensemble's
cross-entropies to that class. In colour, a swarm of particles looks for one value of each channel that, added to all
pixels of the class, lowers the same loss, and pays for decibels of PSNR below 20 and for SSIM below 0.8. What is
published is the sum of both, cut to the range of the images.

So a pixel may move by more than the budget, which binds the first branch alone: twenty decibels are a change by about
25 levels. As in the authors' code, particles are pulled to the best places seen, their own and that of all, with fixed
weights and without chance, and look at a fifth of the images of a class: there the first ones, here a draw.

The paper preset costs 310 passes: 60 of training, 150 of steps, and 100 of the swarm, which differentiates nothing.
Published: an average test accuracy under seven defenses that is 14.95 to 50.82 % lower than that of twelve other
methods, on CIFAR-10 and ImageNet. Measured with `quick` on 3,000 images of CIFAR-10 (JPEG-75 copy), one perturbation, a
half-width small_resnet as surrogate and victim: 12 %, behind JPEG of quality 10 as well, behind adversarial training at
8/255 14 % and in grayscale 28 %, where clean images bring 53, 46, 38 and 46 %.

Ours rather than published: the published ensemble is of stored networks, how they were trained the code does not say;
the colour pays nothing for LPIPS, which takes a network trained on other images; the best place of the swarm stays
where it was seen, while in the authors' code it moves on with its particle; where three classes on would be the class
itself, as among three, another is taken; and the small presets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue.errors import Count, Share
from miue.models.frozen import Frozen
from miue.poisons.base import Made, PgdOptions, Task, blank
from miue.poisons.passes import Loss, put
from miue.precision import loss_scale, precision
from miue.training import loop
from miue.training.recipes import Recipe

REACH, SPEED = 0.1, 0.01  # of the particles at first, as fractions of the pixel range
INERTIA, PULL = 0.5, 0.3
PSNR, SSIM = 20.0, 0.8  # what a colour may cost for nothing


@dataclass(frozen=True, kw_only=True)
class DUNE(PgdOptions):
    """Options of DUNE: those of `PgdOptions`, and

    Args:
        members: networks in the ensemble, all from one training.
        shift: classes from the label to the target.
        particles: of the swarm that looks for a colour.
        moves: of the swarm.
        share: of the images of a class that the swarm looks at, above 0 and at most 1.
    """

    members: Count = 5
    shift: Count = 3
    particles: Count = 10
    moves: Count = 10
    share: Share = 0.2

    @property
    def passes(self) -> float:
        """Training, then for each member the steps, and the share of the images for each particle and move."""
        return self.surrogate.epochs + self.members * (self.steps + self.share * self.particles * self.moves)


_PAPER = DUNE(
    surrogate=Recipe(epochs=60, lr=0.1, schedule="cosine", flip=True, crop=4, precision="float32"),
    steps=30,
    step=0.5 / 255,
    pass_batch=256,
)
_LAPTOP = replace(
    _PAPER, surrogate=replace(_PAPER.surrogate, epochs=30, crop=2), members=3, steps=30, particles=7, moves=10
)

PRESETS = {
    "quick": replace(
        _LAPTOP, surrogate=replace(_LAPTOP.surrogate, epochs=15), steps=10, step=1.2 / 255, particles=5, moves=5
    ),
    "laptop": _LAPTOP,
    "paper": _PAPER,
}


def dune(task: Task) -> Made:
    """Perturb in space and colour; the notes hold one row per surrogate epoch and the colour of each class, in levels.

    A class without images has no colour, but zeros.
    """
    options: DUNE = task.options
    images, keep = task.images, task.keep
    ensemble, trace = _ensemble(task)
    targets = target_classes(len(images.classes), options.shift).to(images.device)

    frozen = [Frozen(member, options.surrogate.precision) for member in ensemble]
    scale = loss_scale(precision(options.surrogate.precision, images.device))

    def error(x: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(member(x)[0], targets[labels]) for member in frozen]).mean()

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        return scale * error(x, labels)

    colours = _colours(task, error)
    delta = blank(images, torch.float16)
    options.pgd_pass(task, loss, task.stream("pgd order"))(delta, options.step, keep.part("steps"))
    both = blank(images, torch.int16)
    for index in images.chunks():
        _, y = images.batch(index)
        moved = delta[index.to(delta.device)].to(y.device).float() + 255 * colours[y][..., None, None]
        put(both, index, moved.round())
    return Made(both, {"epochs": trace, "colours": (255 * colours).round().int().cpu().tolist()})


def target_classes(n_classes: int, shift: int) -> Tensor:
    """The class that each is tied to, (classes,) int64: `shift` on, after the last the first again, never the same."""
    return (torch.arange(n_classes) + 1 + (shift - 1) % (n_classes - 1)) % n_classes


def _ensemble(task: Task) -> tuple[nn.ModuleList, list[dict[str, float]]]:
    """Train the surrogate on the clean images; return it as it stood at moments evenly apart, and its curve."""
    options: DUNE = task.options
    network, epochs = task.network(), options.surrogate.epochs
    members = nn.ModuleList(task.network() for _ in range(options.members))

    def store(done: loop.Epoch) -> None:
        for number, member in enumerate(members, start=1):
            if done.epoch == max(1, round(number * epochs / options.members)):
                member.load_state_dict(network.state_dict())

    return members, task.learn(network, each=store, members=members)


def _colours(task: Task, error: Loss) -> Tensor:
    """Search for the colour of every class, (classes, C) float, a fraction of the pixel range."""
    options: DUNE = task.options
    images, keep = task.images, task.keep.part("colours")
    draws = task.stream("perturbation")
    colours = torch.zeros(len(images.classes), images.shape[0], device=images.device)
    keep.hold(colours=colours, draws=draws)
    for label in task.track(range(keep.restore(), len(colours)), "colours"):
        members = (images.y.cpu() == label).nonzero()[:, 0]
        if len(members):
            some = torch.randperm(len(members), generator=draws)[: math.ceil(options.share * len(members))]
            score = _scored(task, members[some], error)
            found = swarm(score, images.shape[0], options.particles, options.moves, draws)
            colours[label] = found.to(colours)
        keep.save(label + 1)
    return colours


def _scored(task: Task, members: Tensor, error: Loss) -> Callable[[Tensor], float]:
    """What a colour, (C,) on the CPU, brings on some images of a class: loss and penalty, to be low."""
    from kornia.metrics import ssim  # seconds to import

    images = task.images
    window = min(11, min(images.shape[1:]) // 2 * 2 - 1)

    @torch.no_grad()
    def score(colour: Tensor) -> float:
        total = torch.zeros((), device=images.device)
        for index in members.split(task.options.pass_batch):
            x, y = images.batch(index)
            clean = x.float() / 255
            seen = (clean + colour.to(clean)[:, None, None]).clamp(0, 1)
            decibels = -10 * (seen - clean).square().mean((1, 2, 3)).clamp(min=1e-10).log10()
            alike = ssim(seen, clean, window).mean((1, 2, 3))
            penalty = (PSNR - decibels).clamp(min=0) + (SSIM - alike).clamp(min=0)
            total += len(y) * error(seen, y) + penalty.sum()
        return float(total) / len(members)

    return score


def swarm(
    score: Callable[[Tensor], float], dimensions: int, particles: int, moves: int, draws: torch.Generator
) -> Tensor:
    """Particle swarm: the place, (dimensions,), of the lowest score that particles have found.

    Each goes on with half its speed, drawn to the best place that it has seen and to the best that any has.

    Args:
        score: of a place; lower is better.
        dimensions: of a place.
        particles: how many.
        moves: places that each of them sees.
        draws: of the first places and speeds, on the CPU.
    """
    place, speed = (reach * (2 * torch.rand(particles, dimensions, generator=draws) - 1) for reach in (REACH, SPEED))
    best, lowest = place.clone(), torch.full((particles,), torch.inf)
    for _ in range(moves):
        scores = torch.tensor([score(one) for one in place])
        better = scores < lowest
        best[better], lowest[better] = place[better], scores[better]
        speed = INERTIA * speed + PULL * (best - place) + PULL * (best[lowest.argmin()] - place)
        place = place + speed
    return best[lowest.argmin()]
