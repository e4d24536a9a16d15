"""Perturbation methods: one function in a file per method, one dict of names.

Figures in the modules of the methods were measured with `rounding="each_pass"`, the presets' own passes, and victims
that had the surrogate's seed (and, where of its architecture, its first weights), unless they say otherwise.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from miue import specs
from miue.data.images import Images
from miue.errors import InputError, choose, override
from miue.models import builders, check
from miue.models.handed import Spec
from miue.pgd import Budget
from miue.poisons.base import Method, Task, make
from miue.poisons.methods import (
    ar,
    aue_aap,
    cuda,
    dune,
    em,
    entf,
    gratings,
    gue,
    llock,
    lsp,
    mi_ue,
    ops,
    pil,
    pue,
    random,
    rem_sem,
    tap,
    tue,
    uc,
    weave,
)
from miue.poisons.own import method_of
from miue.poisons.poison import Poison
from miue.ranks import ALONE, Ranks
from miue.specs import merged, parse, parse_epsilon
from miue.storage import cache as storage
from miue.storage import provenance
from miue.storage.checkpoint import Checkpoint
from miue.storage.code import code_hash, determined_by, foreign_code
from miue.training.loop import default_device

__all__ = ["METHODS", "Method", "Poison", "find", "find_perturbation", "options", "perturb"]

METHODS: dict[str, Method] = {
    "mi_ue": Method(mi_ue.mi_ue, mi_ue.PRESETS, "epochs", split=True),
    "em": Method(em.em, em.PRESETS, "epochs", split=True),
    "rem": Method(rem_sem.robust, rem_sem.REM_PRESETS, "epochs", split=True),
    "sem": Method(rem_sem.robust, rem_sem.SEM_PRESETS, "epochs", split=True),
    "tap": Method(tap.tap, tap.PRESETS, "steps"),
    "aue": Method(aue_aap.aue, aue_aap.AUE_PRESETS, "epochs"),
    "aap": Method(aue_aap.aap, aue_aap.AAP_PRESETS, "steps"),
    "entf": Method(entf.entf, entf.PRESETS, "epochs"),
    "llock": Method(llock.llock, llock.PRESETS, "epochs"),
    "tue": Method(tue.tue, tue.PRESETS, "rounds"),
    "gue": Method(gue.gue, gue.PRESETS, "epochs"),
    "pue": Method(pue.pue, pue.PRESETS, "epochs"),
    "uc": Method(uc.uc, uc.PRESETS, "epochs_of_generator"),
    "ar": Method(ar.ar, ar.PRESETS),
    "lsp": Method(lsp.lsp, lsp.PRESETS),
    "gratings": Method(gratings.gratings, gratings.PRESETS),
    "weave": Method(weave.weave, weave.PRESETS),
    "pil": Method(pil.pil, pil.PRESETS),
    "ops": Method(ops.ops, ops.PRESETS, bounded=False),
    "cuda": Method(cuda.cuda, cuda.PRESETS, bounded=False),
    "dune": Method(dune.dune, dune.PRESETS, "steps", bounded=False),
    "random": Method(random.random, random.PRESETS),
}
"""The methods by name."""

MOST_ROUNDS = 2**20
"""Rounds that no budget of passes asks for, so that one that reaches them does not rise with rounds."""


def find(method: str | Method | Callable[..., Any]) -> tuple[str, Method, dict[str, Any]]:
    """Return the name of a method, the method, and the options that stand behind the name.

    Args:
        method: one of `METHODS`, with options if wanted ("em:scope=class"); one of your own: a `Method`, a function
            (see `miue.poisons.own.method_of`), or "FILE.py:NAME" of either, which is executed.

    Raises:
        InputError: there is no such method.
    """
    if not isinstance(method, str):
        made = method if isinstance(method, Method) else method_of(method)
        ours = (name for name, one in METHODS.items() if one is made)
        return next(ours, getattr(made.make, "__name__", "own")), made, {}
    name, written = parse(method)
    known = specs.find("method", name, METHODS)
    return name, known if isinstance(known, Method) else method_of(known), written


def options(
    method: str | Method | Callable[..., Any], preset: str, *, passes: float | None = None, **changes: Any
) -> Any:
    """The options of `method` in `preset`, with some fields changed; fields of the surrogate recipe count as its own.

    Args:
        method: one of `METHODS`, with options if wanted: "em:scope=class".
        preset: "quick", "laptop" or "paper".
        passes: over the data that generation may take: the number of rounds (`Method.outer`: epochs of the surrogate,
            or what else the passes rise with) is the largest within it. A number of rounds among the changes stays, and
            so do methods that make no pass through a surrogate. None: the preset's own.
        **changes: more fields, as values.

    Raises:
        InputError: unknown method, preset or field, where the message lists what exists; too few passes for one round.

    Example:
        >>> from miue.poisons import options
        >>> options("em:scope=class", "quick", epochs=5).scope
        'class'
    """
    name, known, written = find(method)
    changes = merged(str(name), written, changes)
    chosen = _changed(name, known.presets[choose("preset", preset, known.presets)], changes)
    outer = known.outer
    if passes is None or outer is None or outer in changes:
        return chosen

    def taken(count: int) -> float:
        return _changed(name, chosen, {outer: count}).passes

    if not taken(1) <= passes < math.inf:
        raise InputError(f"passes: {passes:g}; {method} takes {taken(1):g} for a single round of its {outer}")
    most = bisect_right(range(1, MOST_ROUNDS), passes + 1e-9, key=taken)
    return chosen if most == MOST_ROUNDS - 1 else _changed(name, chosen, {outer: most})


def _changed(name: str, chosen: Any, changes: dict[str, Any]) -> Any:
    """Options with changes, of which those of the surrogate's recipe go there."""
    if not hasattr(chosen, "surrogate"):
        return override(chosen, changes, name)
    of_surrogate = {f.name for f in fields(chosen.surrogate)} - {f.name for f in fields(chosen)}
    inner = {name: value for name, value in changes.items() if name in of_surrogate}
    outer = {name: value for name, value in changes.items() if name not in of_surrogate}
    if inner:
        outer["surrogate"] = override(chosen.surrogate, inner, name)
    return override(chosen, outer, name)


def perturb(
    images: Images,
    method: str | Method | Callable[..., Any],
    *,
    surrogate: Spec = "small_resnet",
    epsilon: float | str = 8 / 255,
    seed: int = 0,
    preset: str = "laptop",
    passes: float | None = None,
    device: torch.device | str | None = None,
    cache: bool | Path = True,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> Poison:
    """Perturb training images.

    Args:
        images: clean images; their order does not matter, only their ids.
        method: one of `METHODS`, with options if wanted ("em:scope=class"), or one of your own, as `find` takes it.
        surrogate: network whose gradients shape the perturbation, one of `miue.models.MODELS` (methods without a
            surrogate ignore it). Or an object as `miue.models.build` takes it: a module that returns (logits,
            features), of which each call trains a copy, from the weights that it has, or a function that makes one.
            Then nothing is cached, unless the object has an attribute `determined_by`, text or JSON, that says all
            that decides what it computes.
        epsilon: L-infinity budget as a fraction of the pixel range, 1/255 to 127/255; `floor(255 epsilon + 1e-6)`
            whole grey levels are used.
        seed: of everything random; the same seed on the same CPU gives the same delta bit for bit.
        preset: "quick", "laptop" or "paper"; the module of each method says what they cost and bring.
        passes: over the data that generation may take, as in `options`; by default the preset's own.
        device: by default the GPU where there is one.
        cache: take the perturbation from the cache where it lies there, and keep it; a stopped generation then goes on
            where it was. False makes it anew and keeps nothing; a folder is used in place of the cache.
        ranks: the processes that share the images, as `miue.ranks.joined` tells them: what comes back is the
            perturbation of those that this one owns, for `miue.poisons.shards.save`.
        **changes: fields of the preset, or of its surrogate's recipe, to override.

    Raises:
        InputError: unknown method, surrogate, preset or option; epsilon out of range; a method that several processes
            cannot share, or images that are not the same for all of them.

    Example:
        >>> import miue
        >>> train, _ = miue.load("digits_m", n_train=40, n_test=20)
        >>> poison = miue.perturb(train, "mi_ue", preset="quick", epochs=1, cache=False)
        >>> poison.delta.shape, poison.delta.dtype
        (torch.Size([40, 3, 32, 32]), torch.int8)
        >>> poison.apply(train)
        Images('Digits-M', 40 of 3x32x32, 10 classes)
    """
    how = _how(images, method, surrogate, epsilon, seed, preset, passes, device, **changes)
    if ranks.count > 1:
        how = how.of(ranks)
    if cache is False:
        return how.make(Checkpoint())
    folder = None if cache is True else cache
    return storage.cached(Poison, how.make, f"perturbation {how.name}", ranks=ranks, folder=folder, **how.key())


def find_perturbation(images: Images, method: str | Method | Callable[..., Any], **how: Any) -> Poison | None:
    """What `perturb` would return for these arguments, all of which must be given, if it lies in the cache."""
    return storage.find(Poison, **_how(images, method, **how).key())


@dataclass(frozen=True)
class _Generation:
    """All that determines a perturbation."""

    images: Images
    name: str
    method: Method
    surrogate: Spec
    budget: Budget
    options: Any
    seed: int
    device: torch.device
    ranks: Ranks = ALONE
    beside: str = ""

    def of(self, ranks: Ranks) -> "_Generation":
        """The part that this process makes; what is made beside it, of which images, determines it too."""
        if not self.method.split or getattr(self.options, "scope", "sample") != "sample":
            able = ", ".join(name for name, method in METHODS.items() if method.split)
            raise InputError(
                f"method: {self.name}, which {ranks.count} processes cannot share; run it without torchrun, or take "
                f"one of {able}, with a delta for each image"
            )
        images = self.images
        if len(set(ranks.gather(images.content_hash))) > 1:
            raise InputError(f"images: {images.name} is not the same for all processes; give each the same images")
        own = images.subset(ranks.own(images.ids, images.y))
        return replace(self, images=own, ranks=ranks, beside=f"{ranks} {images.content_hash}")

    def key(self) -> dict[str, Any]:
        """What it is kept under."""
        make, told = self.method.make, determined_by(self.surrogate)
        surrogate = [] if told is not None else builders(self.surrogate)
        if foreign := foreign_code(make, self.options, *surrogate):
            return {"foreign": foreign}
        return {
            "method": self.name,
            "options": asdict(self.options),
            "surrogate": self.surrogate if told is None else {"determined_by": told},
            "levels": self.budget.levels,
            "seed": self.seed,
            "images": self.images.content_hash,
            "ids": storage.key(ids=self.images.ids.tolist()),
            "code": [code_hash(make.__module__), code_hash("miue.poisons.base")],
            **({"beside": self.beside} if self.beside else {}),
            **provenance.environment(self.device),
        }

    def make(self, keep: Checkpoint) -> Poison:
        images = self.images.on(self.device)
        task = Task(images, self.surrogate, self.budget, self.options, self.seed, keep, self.ranks, self.name)
        return make(self.method, task)


def _how(
    images: Images,
    method: str | Method | Callable[..., Any],
    surrogate: Spec,
    epsilon: float | str,
    seed: int,
    preset: str,
    passes: float | None,
    device: torch.device | str | None = None,
    **changes: Any,
) -> _Generation:
    """Look everything up that is given by name."""
    budget, chosen = Budget(parse_epsilon(epsilon)), options(method, preset, passes=passes, **changes)
    check(surrogate)
    if len(images.classes) < 2:
        raise InputError(f"images: {images.name} has {len(images.classes)} class; at least two are needed")
    name, known, _ = find(method)
    device = torch.device(device or default_device())
    return _Generation(images, name, known, surrogate, budget, chosen, seed, device)
