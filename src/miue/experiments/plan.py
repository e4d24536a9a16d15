"""What an experiment would make: its perturbations and victims, each once, which are cached, and what the rest takes.

A time is estimated from the passes that a step makes over the images and the measured speed of its network
(`miue.experiments.bench`), as a range. Generation mixes passes that train the surrogate with cheaper ones that only
move the images, so its time lies between as if all were of the one kind and as if all were of the other. A victim's
passes are known; what is uncertain there is the machine, `SPREAD` around the estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from miue import poisons
from miue.data import loading
from miue.data.images import Images
from miue.defenses import Defense
from miue.defenses.adversarial import AdversarialTraining
from miue.defenses.ueraser import UEraser
from miue.errors import InputError
from miue.experiments import bench
from miue.experiments.records import matching, measured, refuse_other
from miue.experiments.text import aligned
from miue.experiments.trials import CLEAN, NONE, WITHHELD, Setting, Trial
from miue.pgd import in_levels
from miue.poisons import Poison, find_perturbation
from miue.progress import duration
from miue.specs import parse
from miue.storage import cache, provenance
from miue.training import recipes
from miue.victim import find_victim

SPREAD = 1.5
"""Factor by which the time of a step may leave the estimate to either side; see `book/experiments/index.md`."""

BATCH = 128
"""Images that share a pass of a method that does not say how many."""

OWN_SURROGATE = {"pil": "linear"}
"""Methods whose passes go through a network of their own, and one of `miue.models` that is as fast."""


@dataclass(frozen=True)
class Step:
    """A perturbation or a victim: its name, whether it lies in the cache, and the seconds that making it takes.

    Steps of several plans with the same `key` are the same.
    """

    kind: str
    name: str
    cached: bool
    low: float
    high: float
    key: str


@dataclass(frozen=True)
class Plan:
    """The steps that the trials share, and how many of the trials are measured already."""

    data: str
    trials: int
    recorded: int
    steps: list[Step]

    @property
    def seconds(self) -> tuple[float, float]:
        """What is not cached takes this long, from and to."""
        return together([self])

    def table(self) -> pd.DataFrame:
        """One row for each step."""
        rows = [
            (step.kind, step.name, *(("cached", "") if step.cached else ("to make", between(step.low, step.high))))
            for step in self.steps
        ]
        return pd.DataFrame(rows, columns=["make", "of", "state", "estimate"])

    def lines(self) -> list[str]:
        """What `miue run --dry-run` prints."""
        open_steps = [step for step in self.steps if not step.cached]
        lines = [f"data: {self.data}"]
        if self.recorded:
            lines.append(f"trials: {self.recorded} of {self.trials} are in the records file and not measured again")
        if self.steps:
            lines.append(aligned(self.table()))
        lines.append(f"{len(self.steps)} steps for {self.trials - self.recorded} trials, {len(open_steps)} to make")
        if open_steps:
            lines.append(
                f"estimate: {between(*self.seconds)} on {provenance.device_name()}, and some for measuring information"
            )
            lines.append("it rests on the passes of each step and on speeds measured once, as `miue bench` prints them")
        return lines


def of_template(source: str, values: Mapping[str, Any], name: str, root: str | Path | None = None) -> Plan:
    """Plan what a template's `plan` cell asks for.

    Args:
        source: of the cell; it is executed with the parameters as its variables, and sets `setting` and `wanted`.
        values: of all parameters, checked. Where `records` names a file, its trials are not counted again.
        name: of the template, for messages.
        root: of the data, as `miue.load` takes it.

    Raises:
        InputError: the cell does not set what it must, or asks for what does not exist.
    """
    found: dict[str, Any] = dict(values)
    try:
        exec(compile(source, f"<plan of {name}>", "exec"), found)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"template {name}: its plan cell failed ({type(error).__name__}: {error})") from error
    setting, wanted = found.get("setting"), found.get("wanted")
    if not isinstance(setting, Setting) or not isinstance(wanted, list):
        raise InputError(f"template {name}: its plan cell must set `setting`, a Setting, and `wanted`, a list of Trial")
    file = values.get("records")
    return make(wanted, setting, Path(file) if file else None, root)


def make(
    wanted: Sequence[Trial], setting: Setting, records: Path | None = None, root: str | Path | None = None
) -> Plan:
    """Plan the measurement of trials; nothing is made but measurements of speed that are not kept yet.

    Args:
        wanted: trials.
        setting: what they have in common.
        records: file of measured trials, which need not exist.
        root: of the data, as `miue.load` takes it.

    Raises:
        InputError: a trial asks for what does not exist, the images are not there, or the records are of another
            setting, of an earlier version or of other images.
    """
    setting.check()
    for trial in wanted:
        trial.check(setting)
    unique = list(dict.fromkeys(wanted))
    rows = matching(records, setting) if records is not None and records.exists() else []
    missing = [trial for trial in unique if measured(rows, trial) is None]
    train, test = loading.load(setting.data, root, setting.n_train, setting.n_test, setting.size)
    if records is not None:
        refuse_other(rows, records, train)
    kept: dict[str, Poison | None] = {}
    shown: dict[str, Images | None] = {}  # what victims are trained on; None while its perturbation is not made
    made: dict[str, Step] = {}
    for trial in missing:
        options = asdict(_options(trial, setting)) if trial.perturbs else None
        known = {"images": train.content_hash, "options": options}
        name = _perturbation(trial)
        if trial.perturbs and name not in kept:
            kept[name] = find_perturbation(images=train, **trial.perturbation(setting))
            seconds = (0.0, 0.0) if kept[name] else generation(trial, setting, train)
            made[name] = Step("perturbation", name, kept[name] is not None, *seconds, cache.key(name=name, **known))
        on = _images(trial)
        if on not in shown:
            shown[on] = None if trial.perturbs and kept[name] is None else trial.images(train, kept.get(name))
        images = shown[on]
        name = _victim(trial)
        if name not in made:
            count = len(train if images is None else images)
            told = trial.training(setting, len(train))
            found = images is not None and find_victim(images, test, **told) is not None
            seconds = (0.0, 0.0) if found else training(trial, setting, count, train, test)
            known |= {"test": test.content_hash, "recipe": setting.recipe}
            made[name] = Step("victim", name, found, *seconds, cache.key(name=name, **known))
    in_order = sorted(made.values(), key=lambda step: step.kind)
    return Plan(train.name, len(unique), len(unique) - len(missing), in_order)


def together(plans: Sequence[Plan]) -> tuple[float, float]:
    """Seconds of all steps of several plans that are not cached, from and to; what they share counts once."""
    steps = {step.key: step for plan in plans for step in plan.steps}.values()
    return sum(step.low for step in steps), sum(step.high for step in steps)


def generation(trial: Trial, setting: Setting, train: Images) -> tuple[float, float]:
    """Seconds that the perturbation of a trial takes, from and to; its method's passes are an upper limit."""
    options = _options(trial, setting)
    if not options.passes:
        return 0.0, 0.0
    surrogate = OWN_SURROGATE.get(parse(trial.method)[0], trial.surrogate)
    batch: int = getattr(options, "pass_batch", BATCH)
    recipe = getattr(options, "surrogate", None)
    precision = "float32" if recipe is None else recipe.precision
    speed = bench.measure(surrogate, **_shape(train), precision=precision, batch=batch)
    slow, fast = sorted((speed.training, speed.attack))
    images = options.passes * len(train)
    return images / fast / SPREAD, images / slow * SPREAD


def training(trial: Trial, setting: Setting, images: int, train: Images, test: Images) -> tuple[float, float]:
    """Seconds that the victim of a trial takes, from and to, tests included; without what a defense does before."""
    recipe = recipes.recipe(setting.recipe)
    speed = bench.measure(trial.victim, **_shape(train), precision=recipe.precision, batch=recipe.batch)
    told = trial.training(setting, len(train))
    batches = told.get("batches_per_epoch", recipe.batches_per_epoch)
    each = batches * min(recipe.batch, images) if batches else images
    attacks, forwards = _defending(told["defense"])
    one_epoch = each / speed.training + each * attacks / speed.attack + (each * forwards + len(test)) / speed.testing
    return recipe.epochs * one_epoch / SPREAD, recipe.epochs * one_epoch * SPREAD


def between(low: float, high: float) -> str:
    """Write a range of times."""
    if high < 1:
        return "seconds"
    return duration(high) if duration(low) == duration(high) else f"{duration(low)} to {duration(high)}"


def _defending(defense: Defense | None) -> tuple[float, float]:
    """Passes that move images and passes forward only which a defense adds to each pass of training."""
    match defense:
        case AdversarialTraining():
            return defense.steps, 0
        case UEraser() if defense.draws > 1:
            return 0, defense.draws * defense.first_phase
        case _:
            return 0, 0


def _options(trial: Trial, setting: Setting) -> Any:
    return poisons.options(trial.method, setting.preset, passes=setting.allowed)


def _perturbation(trial: Trial) -> str:
    return _name(trial.method, surrogate=trial.surrogate, epsilon=in_levels(trial.epsilon), seed=trial.seed)


def _images(trial: Trial) -> str:
    """A name of what is trained on; trials that change nothing share one."""
    part = {} if trial.ratio == 1 else {"ratio": trial.ratio}
    if trial.perturbs:
        return _name(_perturbation(trial), **part)
    return _name(WITHHELD, **part, seed=trial.seed) if trial.method == WITHHELD and trial.ratio else CLEAN


def _victim(trial: Trial) -> str:
    on = _images(trial)
    # The seed of the images stands in their name; that of the victim is told where it is another, or they have none.
    seed = {} if on != CLEAN and trial.victim_seed == trial.seed else {"victim seed": trial.victim_seed}
    twin = {} if trial.twin == "none" else {"twin": trial.twin}
    behind = {} if trial.defense == NONE else {"defense": trial.defense}
    return _name(f"{trial.victim} on {on}", **seed, **twin, **behind)


def _name(first: str, **facts: Any) -> str:
    return ", ".join([first, *(f"{name} {value}" for name, value in facts.items())])


def _shape(images: Images) -> dict[str, Any]:
    return {"size": images.shape[-1], "channels": images.shape[0], "n_classes": len(images.classes)}
