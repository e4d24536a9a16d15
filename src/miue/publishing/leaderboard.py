"""All published trials in one table: what each method left of a victim's accuracy, ranked only among its like."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miue.errors import InputError
from miue.experiments.judging import believed, judged, marks
from miue.experiments.trials import CLEAN, NONE, WITHHELD, trained
from miue.pgd import Budget
from miue.poisons import METHODS
from miue.publishing import reference
from miue.runs.run_folder import read_object
from miue.specs import parse_epsilon

SCALES = ("quick", "laptop", "paper")
RANKS = {"quick": 0, "laptop": 1, "standard": 2, "adversarial": 2, "paper": 2}
"""How large a preset or recipe is, as an index into `SCALES`."""

UNKNOWN, UNBOUNDED = "unknown", "unbounded"
CONTROLS = (CLEAN, WITHHELD, "random")
"""What shows whether a method did anything; a control has no rank."""

IMAGES = ["data", "content_hash", "n_train", "n_test", "n_classes", "size"]
SETTING = [*IMAGES, "preset", "allowed", "recipe", "scale"]
"""Fields of a trial that a whole table of trials has in common; `allowed` are the passes that a method may take."""
GROUP = [*SETTING, "victim", "defense", "budget", "ratio", "twin"]
"""Fields that trials share which may stand in one ranking."""
ROW = [*GROUP, "method", "surrogate"]
"""Fields that trials share which differ by their seeds only: a row of the leaderboard."""
SEEDS = ["seed", "victim_seed"]


def scale(preset: str | None, recipe: str | None) -> str:
    """Return "quick", "laptop" or "paper": the lower of a preset and a recipe; "unknown" where one of them is.

    Changes behind the recipe's name do not count; they are part of the recipe, which stands beside the scale.
    """
    ranks = [RANKS.get((name or "").partition(":")[0]) for name in (preset, recipe)]
    known = [rank for rank in ranks if rank is not None]
    return SCALES[min(known)] if len(known) == len(ranks) else UNKNOWN


def trials(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Collect the trials of published records.

    Args:
        records: by the name of their page. A record whose run measured no trials adds none. Where several pages
            hold a trial with the same seeds, it counts once, as the one that was run last has it.

    Returns:
        One row for each trial and its seeds, with the fields `ROW` and `SEEDS`; what was measured, under the names of
        `comparison.compare` and NaN where it was not; `seconds` that its perturbation took; the `estimator` of its
        information; `pages`, the names of all that show it; what can be judged of it, `learned` and `informed` of
        `judging.judged`; and what the paper says: its `family` of data or None, `reported` in [0, 1] or NaN, and
        `same`, whether the two may be subtracted.
    """
    newest_last = sorted(records, key=lambda page: (str(records[page].get("ended")), page))
    rows = [row for page in newest_last for row in _trials(page, records[page])]
    table = pd.DataFrame(rows, columns=[*ROW, *SEEDS, *MEASURED])
    same = table.groupby([*ROW, *SEEDS, "test_accuracy"], dropna=False)["page"]
    table = table.assign(pages=same.transform(lambda names: ", ".join(names)))
    table = table.drop(columns="page").drop_duplicates([*ROW, *SEEDS], keep="last").reset_index(drop=True)
    table = judged(table, within=[*IMAGES, "recipe"])
    whole = table.to_dict("records")
    return table.assign(
        family=pd.Series([reference.family(row) for row in whole], dtype=object),
        reported=pd.Series([reference.reported(row) for row in whole], dtype=float),
        same=pd.Series([reference.same_setting(row) for row in whole], dtype=bool),
    )


def read(folder: str | Path = "book/results") -> dict[str, dict[str, Any]]:
    """Read the records of all published pages in a folder, by the name of their page, for `trials`.

    Raises:
        InputError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"folder: {folder} does not exist; give the folder of published pages, book/results")
    return {path.stem: read_object(path) for path in sorted(Path(folder).glob("*.json"))}


MEASURED = [
    *("test_accuracy", "train_accuracy", "disagreement", "mi", "null", "null_stderr", "within_class", "ceiling"),
    *("estimator", "passes", "seconds", "psnr", "ssim", "class_share", "patch_reader", "device", "page"),
]


def _trials(page: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The trials of one record, each with what its table has in common."""
    given, metrics = record.get("parameters", {}), record.get("metrics", {})
    data = metrics.get("data", {})
    if "data" not in data or "n" not in data:
        return
    common = {
        "page": page,
        "data": data["data"],
        "content_hash": data.get("content_hash", ""),
        "n_train": data["n"],
        "n_test": data.get("n_test") or metrics.get("test", {}).get("n") or given.get("n_test") or float("nan"),
        "n_classes": data.get("n_classes", float("nan")),
        "size": data.get("shape", [_size(given, data["data"])])[-1],
        "preset": given.get("preset"),
        "allowed": str(given.get("passes", "own")),  # before it could be asked for, each preset took its own
        "recipe": given.get("recipe"),
        "scale": scale(given.get("preset"), given.get("recipe")),
        "surrogate": given.get("surrogate", UNKNOWN),
        "epsilon": given.get("epsilon", UNKNOWN),
        "victim": given.get("victim", UNKNOWN),
        "estimator": given.get("estimator", "ksg"),
        "device": metrics.get("device"),
        "defense": NONE,
        "ratio": 1.0,
    }
    for row in metrics.get("trials", []):
        yield _settled(common | row | {"page": page})


def _settled(row: dict[str, Any]) -> dict[str, Any]:
    """A trial with its budget as the groups know it, and no field that does not matter to it."""
    row |= {
        "budget": _budget(row),
        "seconds": row.get("perturbation_seconds"),
        "ratio": float(row["ratio"]),
    }
    method = METHODS.get(row["method"].partition(":")[0])
    if row["budget"] == NONE or (method and method.outer is None):  # no surrogate takes part
        row |= {"surrogate": NONE}
    return {name: row.get(name) for name in [*ROW, *SEEDS, *MEASURED]}


def _budget(row: Mapping[str, Any]) -> str:
    name = row["method"].partition(":")[0]
    if name in (CLEAN, WITHHELD) or row["ratio"] == 0:
        return NONE
    if not row.get("bounded", METHODS[name].bounded if name in METHODS else True):
        return UNBOUNDED
    try:
        return f"{Budget(parse_epsilon(row['epsilon'])).levels}/255"
    except InputError:
        return UNKNOWN


def _size(given: Mapping[str, Any], data: str) -> int:
    """Height and width in pixels, where a record tells it by name only: all sets but folders have 32."""
    told = re.fullmatch(r"folder .*, (\d+) px", data)
    return int(told[1]) if told else given.get("size") or 32


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """Sum up `trials` over seeds and victims, and rank the methods of each group.

    Returns:
        One row for what differs by its seeds only, with the fields `ROW`, and one more for its trials whose accuracy
        cannot be judged; `mark`, what cannot be; `seeds` and `victims`, how many; `mean`, `low` and `high` of the test
        accuracy in [0, 1]; the means of `passes` and `seconds`; the means of `mi` and `null`, of the trials whose
        information can be judged where there are any, NaN over several estimators; `estimator`; `reported` and
        `difference` (ours minus the paper's, only where the setting is the same); `rank` and `of`: its place by mean
        accuracy, from the lowest, among the methods of its `GROUP`, missing for controls, for what cannot be judged and
        where there is no other; and `pages`. Largest scale first, groups together, each by accuracy.
    """
    one = [*ROW, "learned"]
    table = table.assign(trained=list(map(trained, table.to_dict("records"))))
    groups = believed(table, one, ["mi", "null"]).groupby(one, dropna=False, sort=False)
    summed = groups.agg(
        seeds=("seed", "nunique"),
        victims=("trained", "nunique"),
        mean=("test_accuracy", "mean"),
        low=("test_accuracy", "min"),
        high=("test_accuracy", "max"),
        passes=("passes", "mean"),
        seconds=("seconds", "mean"),
        mi=("mi", "mean"),
        null=("null", "mean"),
        estimator=("estimator", lambda names: ", ".join(sorted(set(names)))),
        reported=("reported", "first"),
        same=("same", "all"),
        pages=("pages", listed),
    ).reset_index()
    summed["mark"] = marks(groups)
    summed.loc[summed["estimator"].str.contains(","), ["mi", "null"]] = float("nan")
    summed["difference"] = (summed["mean"] - summed["reported"]).where(summed.pop("same") & summed["learned"])
    control = summed["method"].str.split(":").str[0].isin(CONTROLS) | (summed["ratio"] == 0)
    ranked = summed[~control & summed["learned"].astype(bool)].groupby(GROUP, dropna=False)["mean"]
    summed["of"] = ranked.transform("size")
    summed["rank"] = ranked.rank(method="min").where(summed["of"] > 1)
    summed["effort"] = [-SCALES.index(name) if name in SCALES else 1 for name in summed["scale"]]
    order = ["effort", "data", "n_train", "size", "recipe", "allowed"]
    order += ["ratio", "victim", "defense", "twin", "mean"]
    rising = [name != "n_train" for name in order]
    return summed.sort_values(order, ascending=rising, kind="stable").drop(columns="effort")


def listed(pages: Iterable[str]) -> list[str]:
    """Return the names in several lists of pages, each once, in order."""
    return sorted({name for names in pages for name in names.split(", ")})


def percent(values: Sequence[float]) -> str:
    """Write accuracies in [0, 1] for a reader: "18.8 %", or "18.8 % (13.7 to 25.5)" for several."""
    mean = f"{100 * sum(values) / len(values):.1f} %"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"
