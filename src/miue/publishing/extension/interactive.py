"""Interactive figures: a page that holds one loads Vega, from the book's own files, and no other page does.

- `{miue-leaderboard-plot}`: what each method left of a victim's accuracy, in the setting that the reader chooses.
"""

from typing import Any

import altair as alt
import pandas as pd
from docutils import nodes
from matplotlib.colors import to_hex
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from miue.experiments.figures import COLOURS
from miue.experiments.interactive import Interactive
from miue.experiments.labels import title
from miue.experiments.trials import NONE
from miue.publishing import leaderboard
from miue.publishing.extension.records import trials

VEGA = "vega-6"
"""Folder of Vega, Vega-Lite and Vega-Embed in `_static`, as published."""

OF_SETTING = ["data", "n_train", "victim", "recipe", "surrogate", "allowed"]
"""What tells the settings of the plot apart, in the order in which it is told until they are."""


class Plot(SphinxDirective):
    """`{miue-leaderboard-plot}`: the leaderboard as a plot, undefended victims at the budget of 8/255."""

    def run(self) -> list[nodes.Node]:
        """Return the figure, or nothing while no setting holds three perturbations."""
        rows = compared(leaderboard.rows(trials(self.env)))
        return [nodes.raw("", _drawn(rows)._repr_mimebundle_()["text/html"], format="html")] if len(rows) else []


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Choose the settings in which three perturbations or more met one undefended victim.

    Args:
        rows: of `leaderboard.rows`.

    Returns:
        Their rows, with `setting`, a name of its own for each; first those of most methods, which lie farthest apart.
    """
    usual = (rows["defense"] == NONE) & (rows["ratio"] == 1) & (rows["twin"] == NONE) & rows["learned"].astype(bool)
    rows = rows[usual & rows["budget"].isin(["8/255", leaderboard.UNBOUNDED, NONE])]
    parts = []
    for _, own in rows.groupby([*leaderboard.SETTING, "victim"], dropna=False, sort=False):
        for surrogate in dict.fromkeys(own.loc[own["surrogate"] != NONE, "surrogate"]):
            part = own[own["surrogate"].isin([surrogate, NONE])].drop_duplicates("method")
            if (~part["method"].isin(leaderboard.CONTROLS)).sum() >= 3:
                parts.append(part.assign(surrogate=surrogate))
    parts.sort(key=lambda part: (len(part), part["mean"].max() - part["mean"].min()), reverse=True)
    names = _names([part.iloc[0] for part in parts])
    return pd.concat([part.assign(setting=name) for part, name in zip(parts, names, strict=True)] or [rows[:0]])


def _names(firsts: list[pd.Series]) -> list[str]:
    """A name for each setting that tells it from all others, and no more."""
    words = [
        {
            "data": row["data"],
            "n_train": f"{row['n_train']:,} images",
            "victim": title(row["victim"]),
            "recipe": f"recipe {row['recipe']}",
            "surrogate": f"made with {title(row['surrogate'])}",
            "allowed": f"passes {row['allowed']}",
        }
        for row in firsts
    ]
    told = 3
    while told < len(OF_SETTING) and len({tuple(one[name] for name in OF_SETTING[:told]) for one in words}) < len(
        words
    ):
        told += 1
    return [", ".join(one[name] for name in OF_SETTING[:told]) for one in words]


def _drawn(rows: pd.DataFrame) -> Interactive:
    shown = pd.DataFrame(
        {
            "setting": rows["setting"],
            "method": rows["method"].map(title),
            "colour": [to_hex(COLOURS.get(method, "0.55")) for method in rows["method"]],  # type: ignore[arg-type]
            **{name: (100 * rows[name]).round(1) for name in ("mean", "low", "high")},
            "victims": rows["victims"],
            "information": rows["mi"].round(3),
            "guessing": (100 / rows["n_classes"]).round(1),
        }
    )
    settings = list(dict.fromkeys(shown["setting"]))
    chosen = alt.param(name="setting", value=settings[0], bind=alt.binding_select(options=settings, name="setting"))
    of_chosen = alt.Chart(shown).transform_filter("datum.setting == setting")
    order = alt.EncodingSortField("mean", op="mean")
    base = of_chosen.encode(alt.Y("method:N", sort=order, title=None), alt.Color("colour:N", scale=None))
    across = alt.X("mean:Q", title="clean test accuracy, %", scale=alt.Scale(domain=[0, 100]))
    tips = ["method", "mean", "low", "high", "victims", alt.Tooltip("information", title="information, nats")]
    spans = base.mark_rule(strokeWidth=3, opacity=0.4).encode(alt.X("low:Q"), alt.X2("high:Q"))
    marks = base.mark_circle(size=90, opacity=1).encode(across, tooltip=tips)
    guessing = of_chosen.mark_rule(strokeDash=[2, 3], color="#888888").encode(alt.X("mean(guessing):Q"))
    chart = (guessing + spans + marks).properties(width=420, height=alt.Step(22)).add_params(chosen)
    return Interactive(
        chart,
        "One row for each method of the setting that is chosen: a mark at the mean clean test accuracy of its victims, "
        "a line from the lowest to the highest; dotted, guessing.",
    )


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load the library where a cell of the page showed a `miue.experiments.interactive.Interactive`."""
    if doctree is None or not any("miue-interactive" in raw.astext() for raw in doctree.findall(nodes.raw)):
        return
    for name in ("vega", "vega-lite", "vega-embed"):
        app.add_js_file(f"{VEGA}/{name}.min.js", loading_method="defer")
    app.add_js_file("interactive.js", loading_method="defer")


def connect(app: Sphinx) -> None:
    """Connect it to Sphinx."""
    app.connect("html-page-context", load)
    app.add_directive("miue-leaderboard-plot", Plot)
