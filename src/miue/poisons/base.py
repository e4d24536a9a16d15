"""What all methods share: what they are asked for and return, and `make`, which turns their work into a `Poison`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import Module

from miue import errors, seeds
from miue.data.images import Images
from miue.errors import Count, InputError, Share
from miue.models import Network, build_for
from miue.models.handed import Spec, title
from miue.pgd import Budget, fit_to_images
from miue.poisons.passes import ROUNDINGS, Loss, PGDPass, put
from miue.poisons.poison import Poison
from miue.precision import arithmetic, precision
from miue.progress import T, track
from miue.ranks import ALONE, Ranks
from miue.storage import memory
from miue.storage.checkpoint import Checkpoint
from miue.storage.provenance import collect as provenance
from miue.training import loop
from miue.training.loop import Defense, Epoch
from miue.training.recipes import Recipe


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
        name: of the method.
    """

    images: Images
    surrogate: Spec
    budget: Budget
    options: Any
    seed: int = 0
    keep: Checkpoint = field(default_factory=Checkpoint)
    ranks: Ranks = ALONE
    name: str = "method"

    def network(self) -> Network:
        """The surrogate, freshly drawn, on the images' device."""
        return surrogate_network(self.surrogate, self.images, self.seed)

    def train(self, network: Module, images: Images, recipe: Recipe, **how: Any) -> Iterator[Epoch]:
        """Train `network` as `loop.epochs` does, with the seeds of a surrogate, by all processes together."""
        streams, device = seeds.surrogate(self.seed), self.images.device
        return loop.epochs(network, images, recipe, seed=streams, device=device, ranks=self.ranks, **how)

    def learn(
        self,
        network: Module,
        *,
        defense: Defense | None = None,
        each: Callable[[Epoch], object] | None = None,
        **held: Any,
    ) -> list[dict[str, float]]:
        """Train the surrogate on the clean images by the recipe of the options, before any step.

        Args:
            network: the surrogate.
            defense: under which it is trained.
            each: called after every epoch.
            **held: what that changes, for the checkpoint.

        Returns:
            Its curve, one row per epoch: loss and accuracy.
        """
        rows: list[dict[str, float]] = []
        keep, recipe = self.keep.part("surrogate"), self.options.surrogate
        keep.hold(rows=rows, **held)
        trained = self.train(network, self.images, recipe, defense=defense, keep=keep)
        for done in self.track(trained, "surrogate epochs", recipe.epochs):
            if each is not None:
                each(done)
            rows.append(_row(done))
        return rows

    def in_turns(
        self,
        network: Network,
        pgd_pass: PGDPass,
        renew: Callable[[], object],
        *,
        defense: Defense | None = None,
        **held: Any,
    ) -> tuple[Tensor, list[dict[str, float]]]:
        """Train the surrogate on the perturbed images, and take a pgd pass over them after every epoch.

        Args:
            network: the surrogate.
            pgd_pass: lowers what delta is to lower.
            renew: makes its loss that of the network as it stands, before each pass.
            defense: under which the surrogate is trained.
            **held: what the loss draws from, for the checkpoint.

        Returns:
            Delta, (N, C, H, W) float16 levels, and one row per epoch: loss and accuracy.
        """
        rows: list[dict[str, float]] = []
        delta, recipe = blank(self.images, torch.float16), self.options.surrogate
        self.keep.hold(delta=delta, order_of_passes=pgd_pass.order, trace=rows, **held)
        trained = self.train(network, self.images.plus(delta), recipe, defense=defense, keep=self.keep)
        for done in self.track(trained, "surrogate epochs", recipe.epochs):
            renew()
            pgd_pass(delta, self.options.step)
            rows.append(_row(done))
        return delta, rows

    def own_share(self) -> "Task":
        """This task as one of several processes works on it: its share of the surrogate's batch, and a seed of its own.

        Raises:
            InputError: the processes cannot share that batch.
        """
        if self.ranks.count == 1:
            return self
        surrogate = replace(self.options.surrogate, batch=self.ranks.share(self.options.surrogate.batch))
        seed = seeds.of_rank(self.seed, self.ranks.number)
        return replace(self, options=replace(self.options, surrogate=surrogate), seed=seed)

    def track(self, items: Iterable[T], counted: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` and show how far the method is, as `miue.progress.track` does."""
        return track(items, f"{self.name}, {counted}", total)

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


def _row(done: Epoch) -> dict[str, float]:
    return {"epoch": done.epoch, "surrogate_loss": done.loss, "surrogate_accuracy": done.train_accuracy}


@dataclass(frozen=True)
class Method:
    """A method: the function that makes delta, and its presets (named instances of its options).

    Args:
        make: called with a `Task`, returns what was `Made`.
        presets: "quick", "laptop" and "paper".
        outer: the option, or field of the surrogate's recipe, that the passes rise with; None where no pass goes
            through a surrogate.
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
    return build_for(images, model, seed=seeds.surrogate(seed).weights).to(images.device)


def blank(images: Images, dtype: torch.dtype = torch.int8) -> Tensor:
    """Make a delta of zeros, (N, C, H, W): on the images' device, or in a file where it would not fit.

    A method that takes many small steps carries it as float16: at 8 levels that is exact to 1/256 of a level.
    """
    return memory.zeros((len(images), *images.shape), dtype, images.device)


def whole(images: Images, delta: Tensor) -> Tensor:
    """Round a delta of floating point, (N, C, H, W), to whole levels, int8; one of integers comes back as it is.

    One that lies in a file is written over, from its beginning on, so that the disk need not have room for both.

    Raises:
        FloatingPointError: a value is not finite.
    """
    if not delta.is_floating_point():
        return delta
    apart = memory.fits(delta.nbytes, images.device) or not delta.is_contiguous()
    rounded = blank(images) if apart else delta.view(torch.int8).flatten()[: delta.numel()].view(delta.shape)
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


def make(method: Method, task: Task) -> Poison:
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
        made = method.make(replace(task, images=ordered).own_share())
    delta, largest = whole(ordered, made.delta), 0
    for index in ordered.chunks():
        x, _ = ordered.batch(index)
        levels = delta[index.to(delta.device)].to(x.device)
        if method.bounded and int(levels.abs().max()) > budget.levels:
            raise AssertionError(f"{task.name} left its budget of {budget.levels} levels")
        fitted = fit_to_images(levels, x)
        largest = max(largest, int(fitted.abs().max()))
        put(delta, index, fitted)
    if not largest:
        given = ", ".join(f"{key} {value:.3g}" for key, value in asdict(options).items() if type(value) in (int, float))
        raise InputError(
            f"{task.name}: delta is 0 everywhere once it is rounded to whole grey levels; some pixel must move by half "
            f"a level ({given})"
        )
    record = {
        "method": task.name,
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
