"""Tables of measured trials, for reading and for metrics: what templates show beside their figures."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler
from scipy import stats

from miue.errors import InputError
from miue.experiments.comparison import CLEAN, NONE, Setting
from miue.experiments.judging import VICTIM, believed, judged, marks
from miue.experiments.labels import title
from miue.experiments.records import portable_row
from miue.experiments.trials import trained
from miue.mi.statistics import RankCorrelation, rank_correlation
from miue.pgd import in_levels
from miue.storage.provenance import collect

PERCENT = ("test_accuracy", "lowest", "highest", "best_epoch", "train_accuracy", "disagreement")
NATS = ("mi", "null", "within_class", "ceiling", "stderr", "stderr_samples")
SEEN = {"psnr": "{:.1f}", "ssim": "{:.3f}"}
FACTS = ("levels", "bounded")
OF_DATA = ("data", "n_train", "n_test", "size", "n_classes", "content_hash")
PERTURBATION = ["method", "surrogate", "epsilon", "seed"]
GAPS = {
    "mi_gap": "information: clean minus perturbed",
    "share_gap": "share of the ceiling that is lost",
    "disagreement": "disagreement",
}


def chance(table: pd.DataFrame) -> float:
    """Accuracy of guessing, in (0, 1)."""
    return 1 / int(table["n_classes"].iloc[0])


def about(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """List what the trials of a table have in common, and what was varied, one line each."""
    first = table.iloc[0]
    victims = table.loc[~_trained(table).duplicated(), "victim_seconds"]
    hours = victims.sum() + table.drop_duplicates(PERTURBATION)["perturbation_seconds"].sum()
    lines = {
        "training images": f"{first['n_train']:,} of {first['data']}, {first['n_classes']} classes",
        "their content hash": first["content_hash"],
        "clean test images": f"{first['n_test']:,}",
        "trials": len(table),
        "seeds": _listed(table["seed"]),
        "seeds of the victims": _listed(table["victim_seed"]),
        "passes that a method may take": setting.allowed or "as many as its preset has",
        "optimiser steps of a victim": _listed(table["victim_steps"]) if "victim_steps" in table else "not kept",
        "surrogates and their preset": f"{_listed(table['surrogate'])}; {setting.preset}",
        "victims and their recipe": f"{_listed(table['victim'])}; {setting.recipe}",
        "budgets": _listed(table["epsilon"].map(in_levels)),
        "sliced mutual information": f"{setting.estimator}, {setting.n_slices} directions",
        "hardware": _listed(table["device"]),
        "made from commits": _listed(table["commit"].dropna()),
        "hours of computing": f"{hours / 3600:.1f}",
    }
    return pd.Series(lines, name="this run").to_frame()


def metrics(table: pd.DataFrame, setting: Setting, **more: Any) -> dict[str, Any]:
    """What a run hands on: its data, setting, trials and what made them, as plain JSON.

    A value that a trial does not have (`stderr_samples` of a few images) is left out of its row.
    """
    rows = [portable_row(row) for row in table.astype(object).where(table.notna(), None).to_dict(orient="records")]
    first = {name: rows[0][name] for name in OF_DATA}
    return {
        "data": {**first, "n": first["n_train"]},
        "setting": asdict(setting),
        "trials": [{name: value for name, value in row.items() if value is not None} for row in rows],
        "chance": chance(table),
        **more,
        **collect(),
    }


def summary(table: pd.DataFrame, by: str | Sequence[str] = "method") -> Styler:
    """Show means over seeds and victims: accuracies in percent, what the perturbation cost, information in nats.

    Trials whose accuracy cannot be judged (see `judging.judged`) stand in rows of their own and are marked; means of
    information are of those that can be, where there are any.

    Args:
        table: trials.
        by: the column, or columns, that tell the rows apart.
    """
    shared = [by] if isinstance(by, str) else list(by)
    rows = [*shared, "learned"]
    measured = [name for name in (*PERCENT, *NATS) if name in table and name != "test_accuracy"]
    judgeable = judged(table.assign(trained=_trained(table)))
    groups = believed(judgeable, rows, [name for name in NATS if name in table]).groupby(rows, sort=False)
    shown = groups.agg(
        seeds=("seed", "nunique"),
        victims=("trained", "nunique"),
        test_accuracy=("test_accuracy", "mean"),
        lowest=("test_accuracy", "min"),
        highest=("test_accuracy", "max"),
        passes=("passes", "mean"),
        perturbation_seconds=("perturbation_seconds", "mean"),
    )
    seen = [name for name in SEEN if name in table]
    shown = shown.join(groups[[*seen, *measured]].mean()).join(groups[list(FACTS)].first())
    marked = marks(groups)
    if marked.any():
        shown.insert(0, "mark", marked.to_numpy())
    shown = shown.droplevel("learned").rename(index=_titled)
    shown = shown.rename_axis(index=None if isinstance(by, str) else shared)
    formats = dict.fromkeys(PERCENT, "{:.1%}") | dict.fromkeys(NATS, "{:.3f}") | SEEN
    formats |= dict.fromkeys(("passes", "perturbation_seconds"), "{:.0f}")
    names = {name: name.replace("_", " ") for name in shown}
    wanted = {names[name]: formats[name] for name in shown if name in formats}
    return shown.rename(columns=names).style.format(wanted, na_rep="–")


def against_clean(table: pd.DataFrame) -> pd.DataFrame:
    """Hold every trial against clean training of the same victim, behind the same defense, with the same seeds.

    Returns:
        The trials that are not clean and have such a partner, with `learned` and `informed` of `judging.judged`,
        `clean_accuracy`; `accuracy_gap`, clean minus perturbed; `fall`, the share of the way to guessing; `mi_gap` in
        nats; and `share_gap`, 1 - mi / ceiling. A gap is NaN where it cannot be judged.
    """
    table = judged(table)
    clean = table[table["method"] == CLEAN].drop_duplicates(VICTIM)
    clean = clean[[*VICTIM, "test_accuracy", "mi", "informed"]].rename(
        columns={"test_accuracy": "clean_accuracy", "mi": "clean_mi", "informed": "clean_informed"}
    )
    rows = table[table["method"] != CLEAN].merge(clean, on=VICTIM)
    gap = (rows["clean_accuracy"] - rows["test_accuracy"]).where(rows["learned"])
    both = rows["informed"] & rows["clean_informed"]
    return rows.drop(columns=["clean_mi", "clean_informed"]).assign(
        accuracy_gap=gap,
        fall=gap / (rows["clean_accuracy"] - chance(table)),
        mi_gap=(rows["clean_mi"] - rows["mi"]).where(both),
        share_gap=(1 - rows["mi"] / rows["ceiling"]).where(rows["informed"]),
    )


def correlations(rows: pd.DataFrame) -> dict[str, RankCorrelation]:
    """Spearman's correlation over `rows` (of `against_clean`) between the accuracy gap and each of `GAPS`.

    Of each but the disagreement, also the partial correlation given the disagreement: what it says beyond it. What
    cannot be judged, and so is NaN, is left out. Under four rows, or where all are equal, a rank correlation says
    nothing: what cannot be said is left out.
    """
    found = {}
    for measure, name in GAPS.items():
        pairs = rows[[measure, "accuracy_gap"]].dropna()
        if len(pairs) < 4 or not (pairs.nunique() > 1).all():
            continue
        found[name] = rank_correlation(pairs[measure], pairs["accuracy_gap"])
        if measure != "disagreement":
            with suppress(InputError):  # the disagreement may be the same in all, or order them without exception
                given = rank_correlation(pairs[measure], pairs["accuracy_gap"], rows.loc[pairs.index, "disagreement"])
                found[f"{name}, given the disagreement"] = given
    return found


def contrary(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the trials that go against what is published: perturbations lower accuracy, defenses do not.

    A difference counts beyond two standard errors of the test sets, means over seeds. Random noise is not meant to do
    harm and is left out, and so is what cannot be judged.

    Returns:
        Two tables with `accuracy`, what it is held against, and the standard error of their difference: undefended
        victims that lost less than two of these against clean training, and defended ones that lost more than two
        against the undefended victim.
    """
    table = judged(table)
    cells = (
        table[table["learned"]]
        .groupby(["method", "victim", "defense"], sort=False)
        .agg(accuracy=("test_accuracy", "mean"), n=("n_test", "sum"))
    )
    cells["variance"] = cells["accuracy"] * (1 - cells["accuracy"]) / cells["n"]
    cells = cells.reset_index()

    def held(own: pd.DataFrame, against: pd.DataFrame, on: list[str], name: str) -> pd.DataFrame:
        both = own.merge(against[[*on, "accuracy", "variance"]], on=on, suffixes=("", "_other"))
        error = (both["variance"] + both["variance_other"]) ** 0.5
        shown = both[["method", "victim", "defense", "accuracy"]]
        return shown.assign(**{name: both["accuracy_other"], "standard error": error})

    rows = cells[~cells["method"].isin([CLEAN, "random"])]
    undefended = rows["defense"] == NONE
    clean = cells[(cells["method"] == CLEAN) & (cells["defense"] == NONE)]
    learned = held(rows[undefended], clean, ["victim"], "clean training").drop(columns="defense")
    worse = held(rows[~undefended], rows[undefended], ["method", "victim"], "undefended")
    return (
        learned[learned["accuracy"] > learned["clean training"] - 2 * learned["standard error"]],
        worse[worse["accuracy"] < worse["undefended"] - 2 * worse["standard error"]],
    )


def twins(table: pd.DataFrame) -> pd.DataFrame:
    """Hold each twin of a surrogate against the stranger that meets the same perturbation with the same seeds.

    Args:
        table: trials with `twin`; those that cannot be judged, and twins without a stranger, are left out.

    Returns:
        One row for each pair: `method`, `seed`, `victim_seed`, `twin`, and `difference`, test accuracy of the twin
        minus that of the stranger, in [-1, 1].
    """
    table = judged(table)
    table = table[table["learned"] & (table["method"] != CLEAN)]
    pair = ["method", "seed", "victim_seed"]
    stranger = table.loc[table["twin"] == NONE, [*pair, "test_accuracy"]].rename(columns={"test_accuracy": "stranger"})
    rows = table[table["twin"] != NONE].merge(stranger, on=pair)
    return rows.assign(difference=rows["test_accuracy"] - rows["stranger"])[[*pair, "twin", "difference"]]


def pairs_of(given: Sequence[str]) -> list[tuple[str, str]]:
    """Split "METHOD ~ METHOD" into the two methods.

    Raises:
        InputError: something else is given, or a method is compared with itself.
    """
    found = []
    for text in given:
        first, wave, second = (part.strip() for part in text.partition("~"))
        if not (first and wave and second) or first == second or "~" in second:
            raise InputError(f"pairs: {text!r}; it must be METHOD ~ METHOD, two different ones")
        found.append((first, second))
    return found


def differences(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Hold pairs of methods against each other, before the same victim with the same seeds.

    Args:
        table: trials; those that cannot be judged are left out.
        pairs: of methods.

    Returns:
        One row for each pair of trials: `pair`, as readers know the two; `victim`, `seed`, `victim_seed`; and
        `difference`, test accuracy of the first minus that of the second, in [-1, 1].
    """
    table = judged(table)
    table, same, rows = table[table["learned"]], ["victim", "seed", "victim_seed"], []
    for first, second in pairs:
        one, other = (table.loc[table["method"] == name, [*same, "test_accuracy"]] for name in (first, second))
        both = one.merge(other, on=same, suffixes=("", "_of_second"))
        difference = both["test_accuracy"] - both["test_accuracy_of_second"]
        rows.append(both[same].assign(pair=f"{title(first)} − {title(second)}", difference=difference))
    return pd.concat(rows)[["pair", *same, "difference"]]


def mean_differences(pairs: pd.DataFrame, by: Sequence[str] = ("method", "twin")) -> pd.DataFrame:
    """Sum up the pairs of `twins` or `differences`: one row for each value of the columns `by`.

    Returns:
        `pairs`, how many; `mean`; `deviation`, their standard deviation (n - 1); and `low` and `high`, the 95 %
        interval of the mean by Student's t. Deviation and interval are NaN for one pair.
    """
    found = pairs.groupby(list(by), sort=False)["difference"].agg(pairs="size", mean="mean", deviation="std")
    half = stats.t.ppf(0.975, found["pairs"] - 1) * found["deviation"] / found["pairs"] ** 0.5
    return found.assign(low=found["mean"] - half, high=found["mean"] + half)


def spread(values: pd.Series) -> str:
    """Mean and range of fractions, written in percent without the sign: "59.5 (59 to 60)"."""
    return f"{100 * values.mean():.1f} ({100 * values.min():.0f} to {100 * values.max():.0f})"


def provenance() -> pd.DataFrame:
    """What made a page: versions, code and device, one line each."""
    return pd.Series(collect(), name="this page was made with").to_frame()


def _trained(table: pd.DataFrame) -> pd.Series:
    """`trained` of each row."""
    return pd.Series(list(map(trained, table.to_dict("records"))), index=table.index, dtype=object)


def _listed(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _titled(value: object) -> object:
    return title(value) if isinstance(value, str) else value
