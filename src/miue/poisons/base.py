"""What all methods share: the pgd pass over the images, and `make`, which turns their work into a `Poison`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from miue import errors, seeds
from miue.data.images import Images
from miue.errors import Count, InputError, Share
from miue.models import Network, build
from miue.models.frozen import Frozen
from miue.models.handed import Spec, title
from miue.pgd import Budget, fit_to_images, pgd
from miue.poisons.poison import Poison
from miue.poisons.shards import own_share
from miue.precision import arithmetic, loss_scale, precision
from miue.progress import tell
from miue.ranks import ALONE, Ranks
from miue.replay import Replay
from miue.storage import memory
from miue.storage.checkpoint import Checkpoint
from miue.storage.provenance import collect as provenance
from miue.training.recipes import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]  # of images (B, C, H, W), float in [0, 1], and labels (B,)
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (B, classes), features (B, d), labels (B,)


@dataclass(frozen=True, eq=False)
class Made:
    """What a method returns.

    Args:
        delta: (N, C, H, W) levels: int8 or int16, or floating point, which `make` rounds.
        notes: JSON on how it went.
        passes: over the data that were made, where they are fewer than the options allow.
    """

    delta: Tensor
    notes: dict[str, Any]
    passes: float | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What a method is asked for.

    Args:
        images: clean images in the order of their ids, on the device to work on.
        surrogate: network whose gradients shape delta, for the methods that have one.
        budget: how far a pixel may move.
        options: of the method.
        seed: of everything random.
        keep: where a method that takes long keeps its state.
        ranks: the processes that share the work. The images are those of this one, batch of the surrogate and seed its
            own; a method hands `ranks` to the training of its surrogate, and lets all agree where they could part.
    """

    images: Images
    surrogate: Spec
    budget: Budget
    options: Any
    seed: int = 0
    keep: Checkpoint = field(default_factory=Checkpoint)
    ranks: Ranks = ALONE

    def network(self) -> Network:
        """The surrogate, freshly drawn, on the images' device."""
        return surrogate_network(self.surrogate, self.images, self.seed)

    def stream(self, role: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The random numbers of one role, one of `miue.seeds.ROLES`."""
        return seeds.stream(self.seed, role, device)


@dataclass(frozen=True)
class Options(errors.Options):
    """What the options of every method tell; a method that has none takes these."""

    @property
    def passes(self) -> float:
        """What generation costs at most: forward-and-backward passes over the data. None, unless a method says so."""
        return 0


ROUNDINGS = ("once", "each_pass")
"""When delta is rounded to whole grey levels: at the end, or, as earlier versions did, after each pgd pass as well,
which loses what a pass moves by less than half a level."""


@dataclass(frozen=True, kw_only=True)
class PgdOptions(Options):
    """What the methods whose surrogate is trained by a recipe, and that take pgd passes, have in common.

    Args:
        surrogate: how the surrogate is trained.
        steps: sign-gradient steps in a pgd pass.
        step: their length, as a fraction of the pixel range.
        pass_batch: images in a batch of the pgd pass.
        rounding: one of `ROUNDINGS`.
    """

    surrogate: Recipe
    steps: Count
    step: Share
    pass_batch: Count = 256
    rounding: Annotated[str, ROUNDINGS] = "once"

    def pgd_pass(self, task: Task, loss: Loss, order: torch.Generator, **how: Any) -> "PGDPass":
        """The `PGDPass` that these options describe; `how` goes to it as well."""
        own: dict[str, Any] = {"batch": self.pass_batch, "steps": self.steps, "rounding": self.rounding}
        return PGDPass(task.images, loss, budget=task.budget, order=order, **own, **how)


@dataclass(frozen=True)
class Method:
    """A method: the function that makes delta, and its presets (named instances of its options).

    Args:
        make: called with a `Task`, returns what was `Made`.
        presets: "quick", "laptop" and "paper".
        outer: the option whose number the passes rise with, "surrogate.epochs" or a field of its own; None where no
            pass goes through a surrogate.
        bounded: whether it respects the budget; the methods that do not are marked wherever they appear.
        split: whether processes may share the images, where each has a delta of its own: nothing but the surrogate is
            common to them.
    """

    make: Callable[[Task], Made]
    presets: Mapping[str, Any]
    outer: str | None = None
    bounded: bool = True
    split: bool = False


def surrogate_network(model: Spec, images: Images, seed: int) -> Network:
    """Build the network whose gradients shape delta, on the images' device; `seed` is that of the perturbation."""
    channels, *size = images.shape
    weights = seeds.surrogate(seed).weights
    return build(model, len(images.classes), channels=channels, size=size, seed=weights).to(images.device)


def blank(images: Images, dtype: torch.dtype = torch.int8) -> Tensor:
    """Make a delta of zeros, (N, C, H, W): on the images' device, or in a file where it would not fit.

    A method that takes many small steps carries it as float16: at 8 levels that is exact to 1/256 of a level.
    """
    return memory.zeros((len(images), *images.shape), dtype, images.device)


def put(delta: Tensor, index: Tensor, levels: Tensor) -> None:
    """Write `levels`, (B, C, H, W), into the rows `index` of `delta`, wherever that lies; whole ones into integers."""
    delta[index.to(delta.device)] = levels.to(delta)


def whole(images: Images, delta: Tensor) -> Tensor:
    """Round a delta of floating point, (N, C, H, W), to whole levels, int8; one of integers comes back as it is.

    Raises:
        FloatingPointError: a value is not finite.
    """
    if not delta.is_floating_point():
        return delta
    rounded = blank(images)
    finite = torch.ones((), dtype=torch.bool, device=delta.device)
    for index in images.chunks():
        levels = delta[index.to(delta.device)]
        finite &= levels.isfinite().all()
        put(rounded, index, levels.round())
    if not finite:
        raise FloatingPointError("delta: a value is not finite; take precision float32, or another recipe")
    return rounded


def uniform(images: Images, budget: Budget, generator: torch.Generator, dtype: torch.dtype = torch.int8) -> Tensor:
    """Draw a delta, (N, C, H, W): every whole level of the budget is as likely; `generator` is on the CPU."""
    delta, most = blank(images, dtype), budget.levels
    for index in images.chunks():
        shape = (len(index), *images.shape)
        put(delta, index, torch.randint(-most, most + 1, shape, generator=generator, dtype=torch.int8))
    return delta


def balanced_batches(labels: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Shuffle all indices into batches of at most `size` in which every class has its share.

    Each class is spread evenly over [0, 1); reading from left to right then mixes the classes in proportion. The
    batches are of one size where at most a tenth more of them makes that possible: a GPU replays only equal ones.
    """
    labels = labels.cpu()
    position = torch.empty(len(labels))
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        place = torch.randperm(len(members), generator=generator) + torch.rand(len(members), generator=generator)
        position[members] = place / len(members)
    return position.argsort().tensor_split(_batches(len(labels), size))


def _batches(count: int, size: int) -> int:
    """Batches that `balanced_batches` makes of so many images."""
    least = -(-count // size)
    return next((more for more in range(least, math.floor(1.1 * least) + 1) if count % more == 0), least)


def on_outputs(network: Frozen, objective: Objective) -> Loss:
    """Turn an objective on a network's outputs into a loss on images; for float16 it is scaled.

    Only the signs of its gradients count, so the scale changes nothing else. No precision has been seen to cost
    anything: of three perturbations of Digits-M (MI-UE, quick, small_resnet at half width) that were made with
    bfloat16 in all convolutions and linear layers, two strangers each kept 11 and 19, 19 and 12, 18 and 23 %; of those
    in float32 15 and 67, 13 and 14, 8 and 11 %. No chip had bfloat16; `benchmarks/rounding.py` emulates it.
    """

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return loss_scale(precision(network.number, images.device)) * objective(*network(images), labels)

    return loss


class PGDPass:
    """A pgd pass over the images: sign-gradient steps on a loss, once for every image, in class-balanced batches.

    Args:
        images: clean images, in the order of delta.
        loss: of x + delta, and labels.
        batch: images in a batch, at most.
        budget: how far a pixel may move.
        steps: sign-gradient steps on each batch.
        order: of the images, on the CPU.
        rounding: one of `ROUNDINGS`.
        ascend: raise the loss instead of lowering it.
        begin: told the rows of `images` in each batch before its steps, for a loss that has to know them.
        flips: of the images that half of them are mirrored by for a pass, anew for each, on the CPU; their deltas are
            not. None: all as they are.
        fixed: whether the loss is the same function of images and labels throughout and draws nothing, so that a GPU
            may replay it; without `begin` only.
    """

    def __init__(
        self,
        images: Images,
        loss: Loss,
        *,
        batch: int,
        budget: Budget,
        steps: int,
        order: torch.Generator,
        rounding: str = "once",
        ascend: bool = False,
        begin: Callable[[Tensor], object] | None = None,
        flips: torch.Generator | None = None,
        fixed: bool = False,
    ) -> None:
        self.images, self.batch, self.steps, self.order = images, batch, steps, order
        self.rounding, self.begin, self.flips = rounding, begin, flips
        self.waiting: list[Tensor] = []  # batches of a pass that was begun and is taken in parts
        self.replayed = fixed and begin is None and images.device.type != "cpu"

        def move(x: Tensor, y: Tensor, start: Tensor, step: Tensor | float) -> Tensor:
            return pgd(loss, x, y, start, budget=budget, step=step, steps=steps, ascend=ascend)

        self._move = Replay(move) if self.replayed else move

    def __call__(
        self, delta: Tensor, step: float, keep: Checkpoint | None = None, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Improve `delta`, (N, C, H, W) float16 levels, in place, by steps of length `step` (of the pixel range).

        A long pgd pass has a checkpoint of its own, `keep`, and goes on at the batch where it was stopped. Of a pass
        that is taken in parts, `part` is the number from 0 and how many they are; `waiting` holds the batches of the
        others.

        Raises:
            FloatingPointError: a gradient was not finite.
        """
        images, keep = self.images, Checkpoint() if keep is None else keep
        if part[0] == 0:
            self.waiting[:] = images.located(balanced_batches(images.y, self.batch, self.order))
        begun, ended = ((part[0] + more) * _batches(len(images), self.batch) // part[1] for more in (0, 1))
        batches, self.waiting[:] = self.waiting[: ended - begun], self.waiting[ended - begun :]
        length = torch.tensor(step, device=images.device) if self.replayed else step
        keep.hold(delta=delta, generator=self.order)
        if self.flips is not None:
            mirrored = (torch.rand(len(images), generator=self.flips) < 0.5).to(images.device)
        finite = torch.ones((), dtype=torch.bool, device=images.device)  # asked once, so that no batch has to wait
        for number in range(keep.restore(), len(batches)):
            index = batches[number]
            x, y = images.batch(index)
            if self.flips is not None:
                x = torch.where(mirrored[index.to(x.device), None, None, None], x.flip(3), x)
            start = delta[index.to(delta.device)].to(x.device)
            if self.begin is not None:
                self.begin(index)
            moved = self._move(x, y, start, length)
            finite &= moved.isfinite().all()
            put(delta, index, moved.round() if self.rounding == "each_pass" else moved)
            tell(images=self.steps * len(y))
            keep.save(number + 1)
        if not finite:
            raise FloatingPointError("pgd pass: a gradient is not finite; take precision float32, or another recipe")


def make(method: Method, name: str, task: Task) -> Poison:
    """Run `method` on `images` in the order of their ids, so that the order they come in does not matter.

    Raises:
        InputError: nothing is left of delta once it is rounded to whole levels.
        FloatingPointError: a value of it is not finite.
    """
    images, budget, options = task.images, task.budget, task.options
    about = images.record()  # before the images are ordered, so that they are hashed once
    ordered = images.subset(torch.argsort(images.ids)).on(images.device)
    trained = getattr(options, "surrogate", None)  # the recipe of a surrogate, where there is one
    number = precision("float32" if trained is None else trained.precision, images.device)
    with arithmetic(number):
        made = method.make(own_share(replace(task, images=ordered)))
    delta, largest = whole(ordered, made.delta), 0
    for index in ordered.chunks():
        x, _ = ordered.batch(index)
        levels = delta[index.to(delta.device)].to(x.device)
        if method.bounded and int(levels.abs().max()) > budget.levels:
            raise AssertionError(f"{name} left its budget of {budget.levels} levels")
        fitted = fit_to_images(levels, x)
        largest = max(largest, int(fitted.abs().max()))
        put(delta, index, fitted)
    if not largest:
        given = ", ".join(f"{key} {value:.3g}" for key, value in asdict(options).items() if type(value) in (int, float))
        raise InputError(
            f"{name}: delta is 0 everywhere once it is rounded to whole grey levels; some pixel must move by half a "
            f"level ({given})"
        )
    record = {
        "method": name,
        "options": asdict(options),
        "passes": options.passes if made.passes is None else made.passes,
        "passes_allowed": options.passes,
        "surrogate": title(task.surrogate),
        "precision": number,
        "bounded": method.bounded,
        "epsilon": budget.epsilon if method.bounded else None,
        "levels": budget.levels if method.bounded else largest,
        "seed": task.seed,
        **({"processes": task.ranks.count} if task.ranks.count > 1 else {}),
        "data": about,
        "seconds": task.keep.seconds,
        "notes": made.notes,
        **provenance(images.device),
    }
    return Poison(delta.cpu(), ordered.ids, ordered.fingerprints, record)
