"""Figures from records, in one look: a palette that colour-blind readers can tell apart, SVG for lines."""

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from miue.data.images import Images
from miue.experiments.labels import title
from miue.training.loop import Epoch

COLOURS: dict[str, object] = {"clean": "0.25", "withheld": "0.55"}
COLOURS |= zip(("random", "em", "mi_ue"), sns.color_palette("colorblind", 3), strict=True)
OTHERS = [sns.color_palette("colorblind")[place] for place in (4, 9, 5, 3, 6, 8)]  # furthest from these first
CONTROLS = {
    "mi": "I(Z; Z')",
    "within_class": "shuffled within classes",
    "null": "shuffled freely",
    "ceiling": "ceiling I(Z; Z)",
}


def setup() -> None:
    """Use the look of the book in this notebook: figures of lines are SVG, those with images PNG."""
    look = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 144,
        "legend.frameon": False,
    }
    if "IPython" in sys.modules:
        _choose_formats()
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.9, rc=look)


def _choose_formats() -> None:
    """Show figures as SVG, which is always sharp, beside PNG; those that hold images as PNG alone, which is small."""
    from IPython import get_ipython
    from IPython.core.pylabtools import print_figure

    def svg(figure: Figure) -> Any:
        return None if any(axis.images for axis in figure.axes) else print_figure(figure, "svg")

    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")  # now, since it resets formats when it is loaded
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, svg)


def _colours(methods: Iterable[str]) -> dict[str, object]:
    """A colour for each method: its own, or for those that have none the next in the order of `OTHERS`."""
    methods = list(dict.fromkeys(methods))
    others = [method for method in methods if method not in COLOURS]
    return COLOURS | {method: OTHERS[place % len(OTHERS)] for place, method in enumerate(others)}


def image_grid(images: Images, perturbed: Mapping[str, Images], rows: Tensor, amplify: int = 10) -> Figure:
    """Show clean images under their classes, and for every method the perturbed ones and the perturbations alone.

    Args:
        images: clean images.
        perturbed: the same images by method.
        rows: (k,) int64, which ones.
        amplify: factor on the perturbation.
    """
    clean = images.batch(rows)[0].cpu()
    lines = {"clean": clean}
    for method, shown in perturbed.items():
        x = shown.batch(rows)[0].cpu()
        difference = x.to(torch.int16) - clean.to(torch.int16)
        lines[title(method)] = x
        lines[f"{title(method)}: delta x {amplify}"] = (128 + amplify * difference).clamp(0, 255).to(torch.uint8)
    size = 0.9 * len(rows) + 1.6, 0.92 * len(lines)
    figure, axes = plt.subplots(len(lines), len(rows), figsize=size, squeeze=False)
    for line, (label, x) in zip(axes, lines.items(), strict=True):
        for axis, image in zip(line, x, strict=True):
            axis.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    for axis, label in zip(axes[0], images.y[rows.to(images.y.device)].tolist(), strict=True):
        axis.set_title(textwrap.shorten(images.classes[label], 14, placeholder="…"), fontsize=8)
    return figure


def learning_curves(histories: Mapping[str, Sequence[Sequence[Epoch]]], chance: float) -> Figure:
    """Draw training accuracy (left) and clean test accuracy (right) by epoch, one line a method, the range shaded.

    Args:
        histories: for every method, the epochs of each seed.
        chance: accuracy of guessing, drawn dotted.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    colours = _colours(histories)
    for method, runs in histories.items():
        epochs = [epoch.epoch for epoch in runs[0]]
        for axis, which in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            values = np.array([[getattr(epoch, which) for epoch in run] for run in runs])
            axis.plot(epochs, values.mean(0), color=colours[method], label=title(method))
            axis.fill_between(epochs, values.min(0), values.max(0), color=colours[method], alpha=0.2, lw=0)
    axes[0].set(title="on what it is trained on", ylabel="accuracy", xlabel="epoch", ylim=(0, 1.02))
    axes[1].set(title="on clean test images", xlabel="epoch")
    for axis in axes:
        axis.axhline(chance, ls=":", color="0.6", lw=1)
    axes[0].legend(loc="lower right")
    return figure


def accuracy_bars(table: pd.DataFrame, chance: float) -> Figure:
    """Draw clean test accuracy after the last epoch: a bar for the mean, a dot for every seed.

    Args:
        table: columns `method`, `seed`, `test_accuracy` in [0, 1].
        chance: accuracy of guessing, drawn dotted.
    """
    figure, axis = plt.subplots(figsize=(6, 0.5 * table["method"].nunique() + 1))
    methods = list(dict.fromkeys(table["method"]))
    colours = _colours(methods)
    for place, method in enumerate(methods):
        values = table.loc[table["method"] == method, "test_accuracy"]
        axis.barh(place, values.mean(), color=colours[method], alpha=0.6)
        axis.plot(values, [place] * len(values), "o", color=colours[method], mec="white", ms=6)
        axis.text(values.max() + 0.02, place, f"{values.mean():.1%}", va="center")
    axis.axvline(chance, ls=":", color="0.4", lw=1)
    axis.set(yticks=range(len(methods)), yticklabels=_wrapped(methods), xlim=(0, 1.05), xlabel="clean test accuracy")
    axis.invert_yaxis()
    return figure


def information(table: pd.DataFrame) -> Figure:
    """Draw sliced mutual information beside its controls, one row a method, one mark a seed.

    Args:
        table: columns `method`, `seed` and those of `CONTROLS`, in nats.
    """
    methods = list(dict.fromkeys(table["method"]))
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(methods) + 1.2))
    marks = dict(zip(CONTROLS, ("o", "s", "x", "|"), strict=True))
    colours = dict(zip(CONTROLS, (*sns.color_palette("colorblind", 2), "0.4", "0.2"), strict=True))
    for name, label in CONTROLS.items():
        height = [methods.index(m) for m in table["method"]]
        axis.plot(table[name], height, ls="", marker=marks[name], color=colours[name], label=label, ms=8, alpha=0.8)
    axis.set(yticks=range(len(methods)), yticklabels=_wrapped(methods), xlabel="sliced mutual information in nats")
    axis.margins(y=0.2)
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, handletextpad=0.2)
    return figure


def _wrapped(specs: Iterable[str]) -> list[str]:
    """`title` of each, in lines that leave room for what they name."""
    return [textwrap.fill(title(spec), 34) for spec in specs]


def spectrum(spectra: Mapping[str, Tensor]) -> Figure:
    """Draw the eigenvalues of within-class covariances, largest first, on a log scale.

    Args:
        spectra: (d,) eigenvalues by method.
    """
    figure, axis = plt.subplots(figsize=(6, 3))
    colours = _colours(spectra)
    for method, values in spectra.items():
        axis.plot(range(1, len(values) + 1), values.numpy(), color=colours[method], label=title(method))
    axis.set(yscale="log", xlabel="eigenvalue, from the largest", ylabel="within-class variance")
    axis.legend()
    return figure


def accuracy_table(table: pd.DataFrame, columns: str, chance: float, rows: str = "method") -> Figure:
    """Draw clean test accuracy as a table: methods down, victims or defenses across, means over seeds.

    Args:
        table: columns `test_accuracy` in [0, 1] and the two named by `rows` and `columns`.
        columns: "victim", "defense" or another.
        chance: accuracy of guessing, where the colours start.
        rows: "method" or another.
    """
    return _heat(table, 100 * table["test_accuracy"], rows, columns, 100 * chance, None, "percent")


def share_table(table: pd.DataFrame, columns: str, rows: str = "method") -> Figure:
    """Draw as a table how much of its ceiling the shared information keeps, I(Z; Z') / I(Z; Z), means over seeds.

    Args:
        table: columns `mi` and `ceiling` in nats, and the two named by `rows` and `columns`.
        columns, rows: as for `accuracy_table`.
    """
    return _heat(table, 100 * table["mi"] / table["ceiling"], rows, columns, 0, 100, "% of the ceiling")


def _heat(
    table: pd.DataFrame, values: pd.Series, rows: str, columns: str, low: float, high: float | None, label: str
) -> Figure:
    down, across = (list(dict.fromkeys(table[name])) for name in (rows, columns))
    means = table.assign(shown=values).pivot_table(index=rows, columns=columns, values="shown", sort=False)
    means = means.reindex(index=down, columns=across)
    beside = 1.9 + 0.08 * max(0, max(map(len, map(title, down))) - 14)  # inches, for names and colours
    figure, axis = plt.subplots(figsize=(beside + 0.72 * len(across), 1.8 + 0.3 * len(down)))
    sns.heatmap(means, ax=axis, annot=True, fmt=".0f", cmap="cividis", vmin=low, vmax=high, cbar_kws={"label": label})
    axis.set(xlabel="", ylabel="", yticklabels=map(title, down))
    axis.set_xticklabels(_wrapped(across), rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(left=False, bottom=False)
    axis.tick_params(axis="y", rotation=0)
    return figure


def trends(
    table: pd.DataFrame,
    across: str,
    panels: Mapping[str, str],
    *,
    chance: float | None = None,
    label: str = "",
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Draw how measures change with something that was varied: a panel for each measure, a line for each method.

    Args:
        table: columns `method`, `across` and those of `panels`; several rows of one place are seeds.
        across: what was varied; numbers stand at their place, words beside one another.
        panels: column -> label of its axis.
        chance: accuracy of guessing, drawn dotted where `test_accuracy` is.
        label: of the axis along which it was varied.
        reference: column -> a value to hold the lines against, drawn dashed.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels) + 0.4, 3.3), squeeze=False)
    colours = _colours(table["method"])
    words = list(dict.fromkeys(table[across])) if table[across].map(lambda value: isinstance(value, str)).any() else []
    places = range(len(words)) if words else sorted(table[across].unique())
    for axis, (column, name) in zip(axes[0], panels.items(), strict=True):
        for method, own in table.groupby("method", sort=False):
            at = own[across].map(words.index) if words else own[across]
            means = own.groupby(at)[column].mean().sort_index()
            axis.plot(means.index, means, "-", color=colours[method], label=title(method))
            axis.plot(at, own[column], "o", color=colours[method], mec="white", ms=5)
        if reference and column in reference:
            axis.axhline(reference[column], ls="--", color="0.25", lw=1)
        guessing(axis, column, chance)
        names = [title(word) for word in words] or [f"{place:g}" for place in places]
        look = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if words else {}
        axis.set_xticks(places, names, fontsize=8, **look)
        axis.set(ylabel=textwrap.fill(name, 28), xlabel=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def guessing(axis: Axes, measure: str, chance: float | None) -> None:
    """Where accuracy is drawn, show all that it can be, and that of guessing."""
    if measure == "test_accuracy" and chance is not None:
        axis.axhline(chance, ls=":", color="0.6", lw=1)
        axis.set_ylim(0, 1.02)


def name_marks(axis: Axes, across: pd.Series, up: pd.Series, names: Sequence[str]) -> None:
    """Write a name beside each mark of a drawn axis, none over another; a line leads to one that had to move away.

    Args:
        axis: where; its limits must stand already.
        across, up: (n,) places of the marks.
        names: n of them.
    """
    labels = [axis.text(x, y, name, fontsize=8) for x, y, name in zip(across, up, names, strict=True)]
    line = {"arrowstyle": "-", "lw": 0.6, "color": "0.6"}
    adjust_text(labels, list(across), list(up), ax=axis, expand=(1.2, 1.4), iter_lim=1000, arrowprops=line)


def gaps(table: pd.DataFrame, value: str = "mi", axis: Axes | None = None) -> Figure:
    """Draw the accuracy gap to clean training against the gap of a measure of information, one mark a method.

    Args:
        table: one row a method: columns `method`, `accuracy_gap` in [-1, 1] and `value`_gap, in nats for "mi"; NaN
            where it cannot be judged, and then it is left out.
        value: which measure.
        axis: where to draw; None for a figure of its own.
    """
    axis = axis or plt.subplots(figsize=(6, 4))[1]
    colours = _colours(table["method"])
    table = table.dropna(subset=["accuracy_gap", f"{value}_gap"])
    across, up = table[f"{value}_gap"], table["accuracy_gap"]
    axis.axhline(0, ls=":", color="0.6", lw=1)
    axis.axvline(0, ls=":", color="0.6", lw=1)
    for method, x, y in zip(table["method"], across, up, strict=True):
        axis.plot(x, y, "o", color=colours[method], mec="white", ms=8)
    axis.margins(0.16)
    name_marks(axis, across, up, table["method"].map(title))
    axis.set(xlabel="clean minus perturbed: information in nats", ylabel="clean minus perturbed: test accuracy")
    return axis.get_figure(root=True)  # type: ignore[return-value]
