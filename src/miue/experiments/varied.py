"""Figures of methods of which one thing was changed at a time: options, costs, pairs."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from miue.experiments.figures import COLOURS, OTHERS, guessing
from miue.experiments.labels import title
from miue.specs import parse

PRESET = "the preset"
CHANGES = {"steps": "steps of a pass", "every": "a pass after every k-th epoch", "stop_loss": "an early end"}


def variations(table: pd.DataFrame, panels: Mapping[str, str], chance: float) -> Figure:
    """Draw one-at-a-time changes of options: a column of panels for each option, a row for each measure.

    Args:
        table: columns `option`; `value`, as text in the order to show; `base`, whether it is the preset's own value;
            and those of `panels`. Several rows of one value are seeds.
        panels: column -> label of its axis.
        chance: accuracy of guessing, drawn dotted where `test_accuracy` is.
    """
    options = list(dict.fromkeys(table["option"]))
    size = 1.75 * len(options) + 1, 2.2 * len(panels) + 0.4
    figure, axes = plt.subplots(len(panels), len(options), figsize=size, squeeze=False, sharey="row")
    for column, option in enumerate(options):
        own = table[table["option"] == option]
        values = list(dict.fromkeys(own["value"]))
        for axis, (measure, name) in zip(axes[:, column], panels.items(), strict=True):
            means = own.groupby("value", sort=False)[measure].mean()
            axis.plot(range(len(values)), means, "-", color="0.7")
            for base, marks in own.groupby("base"):
                look = {"marker": "D", "color": COLOURS["mi_ue"]} if base else {"marker": "o", "color": "0.25"}
                axis.plot(marks["value"].map(values.index), marks[measure], ls="", mec="white", **look)
            axis.set_xticks(range(len(values)), values, fontsize=8)
            axis.margins(x=0.25)
            guessing(axis, measure, chance)
            if column == 0:
                axis.set_ylabel(name)
        axes[0, column].set_title(option.replace("_", " "), fontsize=9)
    return figure


def costs(table: pd.DataFrame, surrogate: str, chance: float) -> Figure:
    """Draw clean test accuracy against the passes that variants of MI-UE took: a line for each thing that is changed.

    Args:
        table: trials of clean training, which is drawn dashed, of the preset, which is part of every line, and of
            variants of it, by their options or by a surrogate of their own.
        surrogate: the preset's.
        chance: accuracy of guessing, drawn dotted.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2))
    clean, perturbed = table[table["method"] == "clean"], table[table["method"] != "clean"]
    changes = [_change(*row, surrogate) for row in zip(perturbed["method"], perturbed["surrogate"], strict=True)]
    base = perturbed[[change == PRESET for change in changes]]
    for colour, change in zip(OTHERS, [one for one in dict.fromkeys(changes) if one != PRESET], strict=False):
        own = perturbed[[one == change for one in changes]]
        means = pd.concat([base, own]).groupby(["method", "surrogate"])[["passes", "test_accuracy"]].mean()
        axis.plot("passes", "test_accuracy", "-", data=means.sort_values("passes"), color=colour, label=change)
        axis.plot(own["passes"], own["test_accuracy"], "o", color=colour, mec="white", ms=6)
    axis.plot(base["passes"], base["test_accuracy"], "D", color=COLOURS["mi_ue"], mec="white", ms=7, label=PRESET)
    axis.axhline(clean["test_accuracy"].mean(), ls="--", color="0.25", lw=1)
    places = sorted(perturbed["passes"].round().unique())
    axis.set(xscale="log", xlabel="passes over the images", ylabel="clean test accuracy of the victim")
    axis.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
    axis.minorticks_off()
    guessing(axis, "test_accuracy", chance)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def contrasts(differences: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """Draw differences of pairs, in points, a row for each pair and victim, with the interval of their mean.

    The axis holds all marks; the interval of two pairs, far wider than these, leaves it.

    Args:
        differences: of `tables.differences`.
        means: of `tables.mean_differences`, by pair and victim.
    """
    several = means.index.get_level_values("victim").nunique() > 1
    names = [f"{pair}, {title(victim)}" if several else pair for pair, victim in means.index]
    names = ["\n− ".join(textwrap.fill(one, 46) for one in name.split(" − ")) for name in names]
    figure, axis = plt.subplots(figsize=(8, 0.19 * sum(name.count("\n") + 2 for name in names) + 0.8))
    for place, ((pair, victim), mean) in enumerate(means.iterrows()):
        own = differences[(differences["pair"] == pair) & (differences["victim"] == victim)]
        axis.plot([100 * mean["low"], 100 * mean["high"]], [place, place], color="0.6", lw=5, alpha=0.5)
        axis.plot(100 * mean["mean"], place, "|", color="0.1", ms=12, mew=2)
        for number, seed in enumerate(dict.fromkeys(own["seed"])):
            chosen = 100 * own.loc[own["seed"] == seed, "difference"]
            axis.plot(chosen, [place] * len(chosen), "osDv^"[number % 5], color=f"C{number}", mec="white", ms=6)
    axis.axvline(0, ls="--", color="0.4", lw=1)
    low, high = (100 * pick(0, pick(differences["difference"], default=0)) for pick in (min, max))
    room = 0.2 * (high - low) or 1
    axis.set_xlim(low - room, high + room)
    axis.set(yticks=range(len(means)), ylim=(len(means) - 0.5, -0.5), xlabel="first minus second, points of accuracy")
    axis.set_yticklabels(names, fontsize=8)
    return figure


def _change(method: str, surrogate: str, usual: str) -> str:
    """What a variant of MI-UE changes, in words."""
    options = parse(method)[1]
    if surrogate != usual:
        return "another surrogate"
    if "interleaved" in options:
        return "a step for each batch"
    return " and ".join(CHANGES.get(option, option) for option in options) or PRESET
