"""Figures from records, in one look: a palette that colour-blind readers can tell apart, SVG for lines."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from miue.images import Images
from miue.train import Epoch

NAMES = {
    "clean": "clean",
    "random": "random noise",
    "em": "EM",
    "mi_ue": "MI-UE",
    "small_resnet": "small ResNet",
    "lenet5": "LeNet-5",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg11": "VGG-11",
    "vgg19": "VGG-19",
    "densenet121": "DenseNet-121",
    "wrn34_10": "WRN-34-10",
    "vit": "ViT",
    "mlp2": "2-layer MLP",
    "mlp3": "3-layer MLP",
    "d_vae": "D-VAE",
    "iss": "ISS",
    "ueraser": "UEraser",
    "avatar": "AVATAR",
    **{
        name: name.upper()
        for name in ("rem", "sem", "tap", "ar", "lsp", "ops", "cuda", "pil", "tue", "gue", "pue", "uc")
    },
}
COLOURS = dict(zip(("clean", "random", "em", "mi_ue"), ("0.25", *sns.color_palette("colorblind", 3)), strict=True))
CONTROLS = {
    "mi": "I(Z; Z')",
    "within_class": "shuffled within classes",
    "null": "shuffled freely",
    "ceiling": "ceiling I(Z; Z)",
}


def setup() -> None:
    """Use the look of the book in this notebook."""
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.9)
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 120,
            "legend.frameon": False,
        }
    )


def title(spec: str) -> str:
    """Write a method, victim or defense as a reader knows it: "resnet18:width=0.25" as "ResNet-18, width 0.25"."""
    name, *options = spec.split(":")
    return ", ".join([NAMES.get(name, name.replace("_", " ")), *(option.replace("=", " ") for option in options)])


def _colour(method: str, place: int) -> object:
    return COLOURS.get(method, sns.color_palette("colorblind")[(3 + place) % 10])


def image_grid(images: Images, perturbed: Mapping[str, Images], rows: Tensor, amplify: int = 10) -> Figure:
    """Show clean pictures, and for every method the perturbed picture and its perturbation, amplified around grey.

    Args:
        images: clean pictures.
        perturbed: the same pictures by method.
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
    figure, axes = plt.subplots(
        len(lines), len(rows), figsize=(0.9 * len(rows) + 1.6, 0.92 * len(lines)), squeeze=False
    )
    for line, (label, pictures) in zip(axes, lines.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    return figure


def learning_curves(histories: Mapping[str, Sequence[Sequence[Epoch]]], chance: float) -> Figure:
    """Draw training accuracy (left) and clean test accuracy (right) by epoch, one line a method, the range shaded.

    Args:
        histories: for every method, the epochs of each seed.
        chance: accuracy of guessing, drawn dotted.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for place, (method, runs) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in runs[0]]
        for axis, which in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            values = np.array([[getattr(epoch, which) for epoch in run] for run in runs])
            colour = _colour(method, place)
            axis.plot(epochs, values.mean(0), color=colour, label=title(method))
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
    axes[0].set(title="on what it is trained on", ylabel="accuracy", xlabel="epoch", ylim=(0, 1.02))
    axes[1].set(title="on clean test pictures", xlabel="epoch")
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
    for place, method in enumerate(methods):
        values = table.loc[table["method"] == method, "test_accuracy"]
        axis.barh(place, values.mean(), color=_colour(method, place), alpha=0.6)
        axis.plot(values, [place] * len(values), "o", color=_colour(method, place), mec="white", ms=6)
        axis.text(values.max() + 0.02, place, f"{values.mean():.1%}", va="center")
    axis.axvline(chance, ls=":", color="0.4", lw=1)
    axis.set(yticks=range(len(methods)), yticklabels=map(title, methods), xlim=(0, 1.05), xlabel="clean test accuracy")
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
    axis.set(yticks=range(len(methods)), yticklabels=map(title, methods), xlabel="sliced mutual information in nats")
    axis.margins(y=0.2)
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, fontsize=8, handletextpad=0.2)
    return figure


def spectrum(spectra: Mapping[str, Tensor]) -> Figure:
    """Draw the eigenvalues of within-class covariances, largest first, on a log scale.

    Args:
        spectra: (d,) eigenvalues by method.
    """
    figure, axis = plt.subplots(figsize=(6, 3))
    for place, (method, values) in enumerate(spectra.items()):
        axis.plot(range(1, len(values) + 1), values.numpy(), color=_colour(method, place), label=title(method))
    axis.set(yscale="log", xlabel="eigenvalue, from the largest", ylabel="within-class variance")
    axis.legend()
    return figure


def accuracy_table(table: pd.DataFrame, columns: str, chance: float) -> Figure:
    """Draw clean test accuracy as a table: methods down, victims or defenses across, means over seeds.

    Args:
        table: columns `method`, `seed`, `test_accuracy` in [0, 1], and the one named by `columns`.
        columns: "victim" or "defense".
        chance: accuracy of guessing, where the colours start.
    """
    order = [list(dict.fromkeys(table[name])) for name in ("method", columns)]
    means = table.pivot_table(index="method", columns=columns, values="test_accuracy", sort=False)
    means = means.reindex(index=order[0], columns=order[1])
    figure, axis = plt.subplots(figsize=(1.9 + 0.72 * len(order[1]), 1.3 + 0.3 * len(order[0])))
    sns.heatmap(
        100 * means, ax=axis, annot=True, fmt=".0f", cmap="cividis", vmin=100 * chance, cbar_kws={"label": "percent"}
    )
    axis.set(xlabel="", ylabel="", yticklabels=map(title, order[0]))
    labels = [textwrap.fill(title(name), 32) for name in order[1]]
    axis.set_xticklabels(labels, rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(left=False, bottom=False)
    return figure


def gaps(table: pd.DataFrame, value: str = "mi") -> Figure:
    """Draw the accuracy gap to clean training against the gap of a measure of information, one mark a method.

    Args:
        table: one row a method: columns `method`, `accuracy_gap` in [-1, 1] and `value`_gap, in nats for "mi".
        value: which measure.
    """
    figure, axis = plt.subplots(figsize=(6, 4))
    for place, (method, across, up) in enumerate(
        zip(table["method"], table[f"{value}_gap"], table["accuracy_gap"], strict=True)
    ):
        axis.plot(across, up, "o", color=_colour(method, place), mec="white", ms=8)
    near = 0.035 * np.ptp(table["accuracy_gap"])
    above = -np.inf
    for method, across, up in sorted(
        zip(table["method"], table[f"{value}_gap"], table["accuracy_gap"], strict=True), key=lambda row: row[2]
    ):
        above = max(up, above + near)  # labels of marks that lie close together are stacked
        axis.annotate(
            title(method), (across, above), xytext=(6, 0), textcoords="offset points", fontsize=8, va="center"
        )
    axis.axhline(0, ls=":", color="0.6", lw=1)
    axis.axvline(0, ls=":", color="0.6", lw=1)
    axis.set(xlabel="clean minus perturbed: information in nats", ylabel="clean minus perturbed: test accuracy")
    return figure
