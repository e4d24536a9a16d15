"""Perturbation methods: one function in a file per method, one dict of names.

Figures in the modules of the methods were measured with `rounding="each_pass"`, the presets' own passes, and victims
that had the surrogate's seed (and, where of its architecture, its first weights), unless they say otherwise.
"""

import math
from dataclasses import fields, replace
from typing import Any

import torch

from miue.checkpoint import Checkpoint
from miue.errors import InputError, choose, override
from miue.images import Images
from miue.models import check
from miue.pgd import Budget
from miue.poisons import ar, cuda, em, gue, lsp, mi_ue, ops, pil, pue, random, robust, tap, tue, uc
from miue.poisons.base import Method, make
from miue.poisons.poison import Poison
from miue.specs import parse, parse_epsilon
from miue.train import default_device

__all__ = ["METHODS", "Method", "Poison", "generate", "options"]

METHODS: dict[str, Method] = {
    "mi_ue": Method(mi_ue.mi_ue, mi_ue.PRESETS, "source.epochs"),
    "em": Method(em.em, em.PRESETS, "source.epochs"),
    "rem": Method(robust.robust, robust.REM_PRESETS, "source.epochs"),
    "sem": Method(robust.robust, robust.SEM_PRESETS, "source.epochs"),
    "tap": Method(tap.tap, tap.PRESETS, "steps"),
    "tue": Method(tue.tue, tue.PRESETS, "rounds"),
    "gue": Method(gue.gue, gue.PRESETS, "epochs"),
    "pue": Method(pue.pue, pue.PRESETS, "source.epochs"),
    "uc": Method(uc.uc, uc.PRESETS, "epochs_of_generator"),
    "ar": Method(ar.ar, ar.PRESETS),
    "lsp": Method(lsp.lsp, lsp.PRESETS),
    "pil": Method(pil.pil, pil.PRESETS),
    "ops": Method(ops.ops, ops.PRESETS, bounded=False),
    "cuda": Method(cuda.cuda, cuda.PRESETS, bounded=False),
    "random": Method(random.random, random.PRESETS),
}


def options(method: str, preset: str, *, passes: float | None = None, **changes: Any) -> Any:
    """The options of `method` in `preset`, with some fields changed; fields of the source recipe count as its own.

    Args:
        method: one of `METHODS`, with options if wanted: "em:scope=class".
        preset: "quick", "laptop" or "paper".
        passes: over the data that generation may take: the number of rounds (`Method.outer`: epochs of the surrogate,
            or what else the passes rise with) is the largest within it. A number of rounds among the changes stays, and
            so do methods that make no pass through a surrogate. None: the preset's own.
        **changes: more fields, as values.

    Raises:
        InputError: unknown method, preset or field, where the message lists what exists; too few passes for one round.
    """
    name, changes = parse(method, changes)
    chosen = _changed(name, preset, changes)
    outer = METHODS[name].outer
    if passes is None or outer is None or (rounds := outer.removeprefix("source.")) in changes:
        return chosen
    one, two = (_rounds(chosen, outer, count).passes for count in (1, 2))
    if not one <= passes < math.inf:
        raise InputError(f"passes: {passes:g}; {method} takes {one:g} for a single round of its {rounds}")
    return chosen if one == two else _rounds(chosen, outer, math.floor((passes - one) / (two - one) + 1e-9) + 1)


def _rounds(chosen: Any, outer: str, count: int) -> Any:
    """The same options with `count` for the option `outer`."""
    of_source = outer.removeprefix("source.")
    if of_source == outer:
        return replace(chosen, **{outer: count})
    return replace(chosen, source=replace(chosen.source, **{of_source: count}))


def _changed(method: str, preset: str, changes: dict[str, Any]) -> Any:
    """The options of a preset with changes, of which those of the source recipe go there."""
    presets = METHODS[choose("method", method, METHODS)].presets
    chosen = presets[choose("preset", preset, presets)]
    if not hasattr(chosen, "source"):
        return override(chosen, changes, method)
    of_source = {f.name for f in fields(chosen.source)} - {f.name for f in fields(chosen)}
    inner = {name: value for name, value in changes.items() if name in of_source}
    outer = {name: value for name, value in changes.items() if name not in of_source}
    if inner:
        outer["source"] = override(chosen.source, inner, method)
    return override(chosen, outer, method)


def generate(
    method: str,
    images: Images,
    *,
    model: str = "small_resnet",
    epsilon: float | str = 8 / 255,
    seed: int = 0,
    device: torch.device | str | None = None,
    preset: str = "laptop",
    passes: float | None = None,
    keep: Checkpoint | None = None,
    **changes: Any,
) -> Poison:
    """Perturb training pictures.

    Args:
        method: one of `METHODS`, with options if wanted: "em:scope=class".
        images: clean pictures; their order does not matter, only their ids.
        model: source network, one of `miue.models.MODELS` (methods without a source ignore it).
        epsilon: L-infinity budget as a fraction of the pixel range, 1/255 to 127/255; `floor(255 epsilon + 1e-6)`
            whole grey levels are used.
        seed: of everything random; the same seed on the same CPU gives the same delta bit for bit.
        device: by default the GPU where there is one.
        preset: "quick", "laptop" or "paper"; the module of each method says what they cost and bring.
        passes: over the data that generation may take, as in `options`; by default the preset's own.
        keep: where the state is kept, so that a stopped generation goes on; `miue.steps.perturbation` gives one.
        **changes: fields of the preset, or of its source recipe, to override.

    Raises:
        InputError: unknown method, model, preset or option; epsilon out of range.
    """
    budget, chosen = Budget(parse_epsilon(epsilon)), options(method, preset, passes=passes, **changes)
    check(model)
    if len(images.classes) < 2:
        raise InputError(f"images: {images.name} has {len(images.classes)} class; at least two are needed")
    name, _ = parse(method)
    return make(METHODS[name], name, images.on(device or default_device()), model, budget, chosen, seed, keep)
