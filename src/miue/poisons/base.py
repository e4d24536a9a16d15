"""What all methods share: the pgd pass over the images, and `make`, which turns their work into a `Poison`."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from miue import errors, seeds
from miue.data.images import Images
from miue.errors import Count, InputError, Share
from miue.models import Network, build, forward
from miue.models.handed import Spec, title
from miue.pgd import Budget, fit_to_images, pgd
from miue.poisons.poison import Poison
from miue.precision import arithmetic, loss_scale, precision
from miue.progress import tell
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
    """

    images: Images
    surrogate: Spec
    budget: Budget
    options: Any
    seed: int = 0
    keep: Checkpoint = field(default_factory=Checkpoint)

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

    def pgd_pass(self, task: "Task", delta: Tensor, loss: Loss, order: torch.Generator, **how: Any) -> None:
        """Take a `pgd_pass` as these options say; `how` goes to it as well, and before them."""
        own: dict[str, Any] = {name: getattr(self, name) for name in ("step", "steps", "rounding")}
        own |= {"batch": self.pass_batch, "budget": task.budget, "order": order}
        pgd_pass(task.images, delta, loss, **own | how)


@dataclass(frozen=True)
class Method:
    """A method: the function that makes delta, and its presets (named instances of its options).

    Args:
        make: called with a `Task`, returns what was `Made`.
        presets: "quick", "laptop" and "paper".
        outer: the option whose number the passes rise with, "surrogate.epochs" or a field of its own; None where no
            pass goes through a surrogate.
        bounded: whether it respects the budget; the methods that do not are marked wherever they appear.
    """

    make: Callable[[Task], Made]
    presets: Mapping[str, Any]
    outer: str | None = None
    bounded: bool = True


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

    Each class is spread evenly over [0, 1); reading from left to right then mixes the classes in proportion.
    """
    labels = labels.cpu()
    position = torch.empty(len(labels))
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        place = torch.randperm(len(members), generator=generator) + torch.rand(len(members), generator=generator)
        position[members] = place / len(members)
    return position.argsort().tensor_split(-(-len(labels) // size))


def on_outputs(network: nn.Module, objective: Objective, number: str = "float32") -> Loss:
    """Turn an objective on a network's outputs into a loss on images, with the network as it stands now.

    The network computes in `number`, one of `PRECISIONS`; for float16 the loss is scaled, for only the signs of its
    gradients count. The presets ask for float32. What bfloat16 costs is not known: one perturbation of Digits-M that
    was made in it left its victim 40 % instead of 17 %, but strangers of five made in float32 kept 13, 13, 17, 66 and
    71 % (the page *Twin or stranger*), so that single runs decide nothing; `benchmarks/rounding.py` makes more of them.
    """
    fixed = _fused(network.eval())

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        resolved = precision(number, images.device)
        return loss_scale(resolved) * objective(*forward(fixed, images, resolved), labels)

    return loss


def _fused(network: nn.Module) -> nn.Module:
    """Copy a network, with batch norm folded into the convolutions where that can be: a fifth faster.

    It rests on torch.fx, which follows no code whose course its tensors decide, as in many networks from elsewhere, and
    then raises whatever that code makes of its stand-ins. These compute as they are, to the same values.
    """
    try:
        return fuse(network)
    except Exception:
        return copy.deepcopy(network)


def pgd_pass(
    images: Images,
    delta: Tensor,
    loss: Loss,
    *,
    batch: int,
    budget: Budget,
    step: float,
    steps: int,
    order: torch.Generator,
    rounding: str = "once",
    ascend: bool = False,
    begin: Callable[[Tensor], object] = lambda rows: None,
    keep: Checkpoint | None = None,
) -> None:
    """Improve `delta` (float16 levels) in place, once for every image, by descent on `loss` (ascent, if so asked).

    `rounding` is one of `ROUNDINGS`. Before the steps of each batch, `begin` is told the rows of `images` in it, for a
    loss that has to know them. A long pgd pass has a checkpoint of its own, `keep`, and goes on at the batch where it
    was stopped.

    Raises:
        FloatingPointError: a gradient was not finite.
    """
    batches = balanced_batches(images.y, batch, order)
    keep = Checkpoint() if keep is None else keep
    keep.hold(delta=delta, generator=order)
    finite = torch.ones((), dtype=torch.bool, device=images.device)  # asked once, so that no batch has to wait
    for number in range(keep.restore(), len(batches)):
        index = batches[number]
        x, y = images.batch(index)
        start = delta[index.to(delta.device)].to(x.device)
        begin(index)
        moved = pgd(loss, x, y, start, budget=budget, step=step, steps=steps, ascend=ascend)
        finite &= moved.isfinite().all()
        put(delta, index, moved.round() if rounding == "each_pass" else moved)
        tell(images=steps * len(y))
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
        made = method.make(replace(task, images=ordered))
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
        "data": about,
        "seconds": task.keep.seconds,
        "notes": made.notes,
        **provenance(images.device),
    }
    return Poison(delta.cpu(), ordered.ids, ordered.fingerprints, record)
