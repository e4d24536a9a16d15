"""Numbers for sentences, taken from the trials of published pages, so that no hand copies them."""

from dataclasses import dataclass

import pandas as pd

from miue.errors import InputError, choose
from miue.experiments import tables
from miue.experiments.labels import title
from miue.experiments.trials import NONE, trained
from miue.publishing import reference
from miue.publishing.leaderboard import GROUP

UNITS = (
    dict.fromkeys(
        ("test_accuracy", "train_accuracy", "disagreement", "class_share", "patch_reader"), (100, "{:.1f}", " %")
    )
    | dict.fromkeys(("mi", "null", "within_class", "ceiling"), (1, "{:.3f}", " nats"))
    | {"share": (100, "{:.0f}", " %")}
    | {"psnr": (1, "{:.1f}", " dB"), "ssim": (1, "{:.3f}", ""), "passes": (1, "{:.0f}", "")}
)
"""What can be quoted: its factor, how a number is written, and the unit behind it. `share` is that of the ceiling which
the information has."""
OF_VICTIM = ("test_accuracy", "train_accuracy")
"""What one clean victim has but once, whatever perturbations stand beside it."""
FORMS = ("mean", "range", "whole")
ALIKE = ("victim", "surrogate", "defense", "budget", "ratio", "twin", "recipe", "data")
"""Fields in which trials that are quoted together must not differ."""
UNPERTURBED = ("surrogate", "budget")
"""Of these, clean trials and those without a surrogate have none, and stand with all."""


@dataclass(frozen=True)
class Quote:
    """What stands in the sentence, and where it comes from."""

    text: str
    source: str


def quote(trials: pd.DataFrame, words: str) -> Quote:
    """Write one number of some trials.

    Args:
        trials: as `leaderboard.trials` returns them, of one page or several.
        words: METHOD or METHOD ~ METHOD, and behind commas what is wanted: FIELD=VALUE to choose trials (`victim`,
            `defense`, `seed` and so on; no defense unless one is named), the name of what was measured
            (`test_accuracy` unless another is named), and "mean", "range" or "whole", the mean with its range. Of a
            pair the difference is written, first minus second, with its 95 % interval over pairs of like seeds.

    Returns:
        The text, such as "20.9 %", "0.054 nats" or "-3.1 points (-7.2 to 1.0)", and what it sums up.

    Raises:
        InputError: no trial is meant, or several that differ in more than their seeds, or what is asked for is unknown.
    """
    methods, *wanted = (part.strip() for part in words.split(","))
    chosen = {"defense": NONE}
    measure, form = "test_accuracy", "mean"
    for part in wanted:
        field, equals, value = part.partition("=")
        if equals:
            choose("field", field, [*GROUP, "surrogate", "seed", "victim_seed"])
            chosen[field] = value
        elif part in FORMS:
            form = part
        else:
            measure = choose("measure", part, UNITS)
    for field, value in chosen.items():
        found = trials[field].map(str)
        trials = trials[(found == value) | (found == NONE) & (field in UNPERTURBED)]
    first, wave, second = (part.strip() for part in methods.partition("~"))
    used = trials[trials["method"].isin([first, second] if wave else [first])]
    _refuse_mixed(used, words)
    return _difference(used, (first, second), words) if wave else _value(used, measure, form, words)


def reported(words: str) -> Quote:
    """Write an accuracy that the paper reports: METHOD, and behind commas its `dataset`, `victim` or `training`.

    These are "cifar10", "resnet18" and "standard" unless another is named, as in "em, training=at_4".

    Raises:
        InputError: the paper reports none.
    """
    method, *wanted = (part.strip() for part in words.split(","))
    where = {"dataset": "cifar10", "victim": "resnet18", "training": "standard"}
    for part in wanted:
        field, _, value = part.partition("=")
        where[choose("field", field, where)] = value
    known = reference.accuracies().get((*where.values(), method))
    if known is None:
        raise InputError(f"reported: the paper has no accuracy of {words!r}")
    return Quote(f"{100 * known:.2f} %", "the paper: " + ", ".join([title(method), *where.values()]))


def _refuse_mixed(used: pd.DataFrame, words: str) -> None:
    if used.empty:
        raise InputError(f"measured: no trial is {words!r}")
    for field in ALIKE:
        values = sorted(set(used[field].map(str)) - ({NONE} if field in UNPERTURBED else set()))
        if len(values) > 1:
            raise InputError(f"measured: {words!r} means trials of several values of {field}: {', '.join(values)}")


def _value(used: pd.DataFrame, measure: str, form: str, words: str) -> Quote:
    victims = pd.Series(list(map(trained, used.to_dict("records"))), index=used.index)
    used = used.assign(share=used["mi"] / used["ceiling"])[~victims.duplicated() | (measure not in OF_VICTIM)]
    values = used[measure].dropna().astype(float)
    if values.empty:
        raise InputError(f"measured: no trial of {words!r} has {measure}")
    factor, form_of_one, unit = UNITS[measure]
    mean, low, high = (form_of_one.format(factor * v) for v in (values.mean(), values.min(), values.max()))
    texts = {
        "mean": f"{mean}{unit}",
        "range": f"{low} to {high}{unit}",
        "whole": f"{mean}{unit}" if len(values) == 1 else f"{mean}{unit} ({low} to {high})",
    }
    count = victims[values.index].nunique()
    told = f"{count} victim{'s' if count > 1 else ''}" + (f" in {len(values)} trials" if len(values) > count else "")
    return Quote(texts[form], f"{title(used['method'].iloc[0])}, {told}")


def _difference(used: pd.DataFrame, pair: tuple[str, str], words: str) -> Quote:
    differences = tables.differences(used, [pair])
    if differences.empty:
        raise InputError(f"measured: no two trials of {words!r} share their seeds")
    found = tables.mean_differences(differences, ["pair"]).iloc[0]
    text, source = f"{100 * found['mean']:+.1f} points", f"{differences['pair'].iloc[0]}, 1 pair"
    if found["pairs"] > 1:
        text += f" ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
        source = f"{differences['pair'].iloc[0]}, {found['pairs']:.0f} pairs, 95 % interval of the mean"
    return Quote(text.replace("-", "\N{MINUS SIGN}"), source)
