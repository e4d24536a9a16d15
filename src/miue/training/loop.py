"""The one training loop, and what is asked of a trained network: accuracy and features."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.errors import InputError
from miue.models.network import evaluating, forward
from miue.precision import arithmetic, loss_scale, precision
from miue.progress import skip, tell
from miue.ranks import ALONE, Ranks
from miue.storage.checkpoint import Checkpoint
from miue.training.augment import Moves, draw_moves, move
from miue.training.recipes import Recipe
from miue.training.step import Trainer, schedule


@dataclass(frozen=True)
class Epoch:
    """What one epoch left: its number from 1, mean loss, and accuracies in [0, 1].

    The training accuracy is a running mean on what is trained on, augmentation and defense included, against the
    images' own labels.
    """

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None


@dataclass(frozen=True)
class BatchContext:
    """What a defense may look at while a batch is trained on.

    Args:
        losses: cross-entropy (B,) of images (B, C, H, W), float in [0, 1], with labels (B,), under the network as it
            stands, in evaluation mode until the batch is there; differentiable in the images.
        n_classes: number of classes.
        generator: on the CPU, of the defense alone; all randomness comes from it, but for `noise`.
        noise: on the images' device, for random numbers as many as there are pixels.
        done: share of the training that is over, in [0, 1).
        scale: what `losses` are multiplied by before a gradient is taken, so that float16 does not lose it; above 0.
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    n_classes: int
    generator: torch.Generator
    noise: torch.Generator
    done: float
    scale: float = 1.0


class Defense(Protocol):
    """What someone who trains may do about perturbations; shapes and ranges stand with `miue.defenses.Defense`."""

    def prepare(self, images: Images, seed: int) -> Images:
        """Change the training images once, before training; unless told how, they stay."""
        return images

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Turn a batch, after flip and crop, into the images and targets that are trained on."""


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches(count: int, recipe: Recipe) -> int:
    """Batches, that is optimiser steps, of an epoch over `count` images; a lone last image makes none."""
    whole = -(-count // recipe.batch) - (count % recipe.batch == 1)  # batch norm cannot train on one
    return whole if recipe.batches_per_epoch is None else recipe.batches_per_epoch


class _Orders:
    """Endless permutations of the images, cut into batches and these into epochs; a lone last image is left out.

    Where an epoch has fewer batches than a permutation, the rest waits for the next one; where it has more, several
    permutations are joined before they are cut, so that its batches are full.
    """

    def __init__(self, count: int, size: int, per_epoch: int, generator: torch.Generator) -> None:
        self.count, self.size, self.generator = count, size, generator
        self.per_epoch = per_epoch
        self.waiting: list[Tensor] = []

    def next(self) -> list[Tensor]:
        if self.per_epoch > -(-self.count // self.size):
            orders = [self._permutation() for _ in range(-(-self.per_epoch * self.size // self.count))]
            return list(torch.cat(orders).split(self.size)[: self.per_epoch])
        while len(self.waiting) < self.per_epoch:
            self.waiting += [batch for batch in self._permutation().split(self.size) if len(batch) > 1]
        order, self.waiting[:] = self.waiting[: self.per_epoch], self.waiting[self.per_epoch :]
        return order

    def _permutation(self) -> Tensor:
        return torch.randperm(self.count, generator=self.generator)


def epochs(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    seed: int | seeds.Training = 0,
    test: Images | None = None,
    device: torch.device | str | None = None,
    defense: Defense | None = None,
    keep: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Epoch]:
    """Train `model` in place on `images`, yielding after every epoch; the caller may act in between, or stop.

    Args:
        model: returns (logits, features); it is moved to `device`.
        images: the training images; a view made by `Images.plus` is read afresh in each batch.
        recipe: how to train.
        seed: of a victim; or, of any other network, the seeds of its order, augmentation and defense.
        test: clean images to measure after every epoch.
        device: where to train; by default the GPU where there is one.
        defense: what is done to the training images before and while they are trained on.
        keep: where the state is kept after every epoch, and after what the caller does then with what it holds in it
            too. Epochs that are found there are not yielded again.
        ranks: the processes that train together, each on `images` of its own and in batches of the recipe, as many as
            the one with the fewest makes of them; gradients are averaged over them. What is yielded is each one's own.

    Raises:
        InputError: fewer than two images.
        FloatingPointError: the loss is no longer finite.
    """
    if len(images) < 2:
        raise InputError(f"images: {len(images)} image; training needs at least 2")
    device = torch.device(device or default_device())
    streams = seed if isinstance(seed, seeds.Training) else seeds.victim(seed)
    if defense is not None:
        with arithmetic("float32"):
            images = defense.prepare(images, seeds.derived(streams.defense, "defense preparation"))
    images, model = images.on(device), model.to(device)
    number = precision(recipe.precision, device)
    ordering, augmenting, defending = (torch.Generator().manual_seed(own) for own in streams[1:4])
    noise = torch.Generator(device).manual_seed(streams.noise)
    trainer = Trainer(model, recipe, number, device, ranks)

    def losses(x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(forward(model, x, number)[0], labels, reduction="none")

    per_epoch = min(ranks.gather(batches(len(images), recipe)))
    orders = _Orders(len(images), recipe.batch, per_epoch, ordering)
    scheduler, by_batch = schedule(trainer.optimizer, recipe, orders.per_epoch)
    keep = Checkpoint() if keep is None else keep
    keep.hold(network=model, optimizer=trainer.optimizer, scheduler=scheduler, waiting=orders.waiting)
    keep.hold(order=ordering, augmentation=augmenting, defense=defending, noise_of_defense=noise, scaler=trainer.scaler)
    before = keep.restore()
    skip(before)
    for epoch in range(before + 1, recipe.epochs + 1):
        with arithmetic(number):
            order = images.located(orders.next())
            moves = _moves(order, recipe, augmenting, device)
            loss_sum, hits, seen = torch.zeros((), device=device), torch.zeros((), device=device), 0
            for place, index in enumerate(order):
                x, y = images.batch(index)
                x = move(x, moves[place], recipe.crop)
                if defense is None:
                    shown, targets = x.float() / 255, y
                else:
                    done = (epoch - 1 + place / len(order)) / recipe.epochs
                    context = BatchContext(losses, len(images.classes), defending, noise, done, loss_scale(number))
                    model.eval()
                    shown, targets = defense.batch(x, y, context)
                loss, logits = trainer(shown, targets)
                if by_batch:
                    scheduler.step()
                loss_sum += loss * len(y)
                hits += (logits.argmax(1) == y).sum()
                seen += len(y)
                tell(images=len(y))
            if not by_batch:
                scheduler.step()
            mean_loss = float(loss_sum) / seen
            tell(loss=mean_loss)
            if not math.isfinite(mean_loss):
                raise FloatingPointError(
                    f"training diverged: loss {mean_loss} in epoch {epoch} at learning rate {recipe.lr}"
                )
            on_test = None if test is None else accuracy(model, test, number)
        yield Epoch(epoch, mean_loss, float(hits) / seen, on_test)
        keep.save(epoch, last=epoch == recipe.epochs)


def _moves(
    order: Sequence[Tensor], recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Sequence[Moves | None]:
    """Draw how the images of an epoch are moved, batch by batch, and take it to the device at once."""
    drawn = [draw_moves(len(index), padding=recipe.crop, flip=recipe.flip, generator=generator) for index in order]
    wanted = [moves for moves in drawn if moves is not None]
    return torch.cat(wanted).to(device).split([len(index) for index in order]) if wanted else drawn


class Trained(Protocol):
    """What holds a trained network, as `miue.Victim` does."""

    @property
    def model(self) -> nn.Module:
        """The network."""


@torch.no_grad()
def _outputs(given: nn.Module | Trained, images: Images, precision: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (logits, features, labels) in evaluation mode, leaving the model's own mode as it was."""
    model = given if isinstance(given, nn.Module) else given.model
    view = images.on(next(model.parameters()).device)
    with evaluating(model):
        for index in torch.arange(len(view)).split(_at_once(view)):
            x, y = view.batch(index)
            logits, features = forward(model, x.float() / 255, precision)
            yield logits, features, y


def _at_once(images: Images) -> int:
    """Images whose features are in memory together: 1,000 of up to 64 px, fewer of larger ones."""
    _, height, width = images.shape
    return max(1, min(1000, 1000 * 64**2 // (height * width)))


def accuracy(model: nn.Module | Trained, images: Images, precision: str = "float32") -> float:
    """Share of `images` whose label a network (or a victim) finds, in [0, 1].

    Learning curves are measured in the precision of the recipe: on a processor with native bfloat16, 10,000 test
    images after each epoch would otherwise take longer than the training.

    Example:
        >>> import miue
        >>> _, test = miue.load("digits_m", n_train=40, n_test=20)
        >>> 0 <= miue.accuracy(miue.models.build("small_resnet", 10), test) <= 1
        True
    """
    with arithmetic(precision):
        hits = sum((logits.argmax(1) == y).sum() for logits, _, y in _outputs(model, images, precision))
    return int(hits) / len(images)


def features(model: nn.Module | Trained, images: Images) -> Tensor:
    """What feeds the last linear layer of a network (or a victim), for every image in order.

    Returns:
        (N, d) IEEE float32, on the network's device.

    Example:
        >>> import miue
        >>> train, _ = miue.load("digits_m", n_train=40, n_test=20)
        >>> miue.features(miue.models.build("small_resnet", 10), train).shape
        torch.Size([40, 64])
    """
    with arithmetic("float32"):
        return torch.cat([features for _, features, _ in _outputs(model, images, "float32")])
