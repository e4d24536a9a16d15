"""What published trials say about a claim: functions of the trials of one setting, None where they say nothing.

Accuracies of different victims and defenses are compared as shares of the possible fall, (clean - accuracy) /
(clean - chance): 0 where nothing is lost, 1 where the victim guesses. At least half of it counts as harm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from miue import defenses, specs
from miue.defenses.adversarial import AdversarialTraining
from miue.experiments.labels import title
from miue.experiments.trials import CLEAN, NONE
from miue.mi import statistics
from miue.publishing.leaderboard import UNBOUNDED, percent
from miue.publishing.reference import BUDGET

OURS = "mi_ue"
COMPARED = ("em", "tap", "ntga", "ar", "rem", "sem", "gue", "tue")
"""The methods that the paper sets MI-UE against, as published: without options."""

OF_THIS_BOOK = ("gratings", "weave")
"""Perturbations that the paper could not know; what it says of all methods is not judged by them."""

RESIDUAL = ("small_resnet", "resnet18")
"""Networks of one family, whatever their width."""

DEPTH = ("linear", "mlp2", "mlp3", "lenet5", "vgg11", "small_resnet", "resnet18")
"""Victims from shallow to deep, whatever their width."""

HARM = 0.5
ALIKE = 0.05
"""Means of accuracy that lie within that count as the same."""
MANY = 8
"""Methods from which a correlation over them says something."""
RANKED = 0.9
"""Spearman's correlation from which two orders count as the same; six places with two neighbours swapped have 0.94."""


@dataclass(frozen=True)
class Finding:
    """What one setting says about a claim.

    Args:
        holds: whether it holds there.
        numbers: that say so.
        used: the trials that these come from.
        margin: of a claim that ranks, by how much it holds (fails, where it is 0 or less); None for others.
    """

    holds: bool
    numbers: str
    used: pd.DataFrame
    margin: float | None = None


Judge = Callable[[pd.DataFrame, str], Finding | None]
"""Takes the trials of one setting and surrogate, as `leaderboard.trials` returns them, and the residual victim among
them that the claim is judged by."""


def lowest(table: pd.DataFrame, victim: str) -> Finding | None:
    """MI-UE leaves the lowest accuracy of all compared methods, for every seed of the perturbations."""
    used = _select(table, (OURS, *COMPARED), victim)
    seeds = _by_seed(used, "test_accuracy")
    if OURS not in seeds or len(seeds.columns) < 2 or seeds.empty:
        return None
    others = seeds.drop(columns=OURS)
    ahead = others.min(axis=1) - seeds[OURS]
    text = "; ".join(f"{title(method)} {percent(seeds[method])}" for method in [OURS, *others])
    return Finding(bool((ahead > 0).all()), f"{text}; MI-UE is the lowest in {_share(ahead > 0)}", used, ahead.min())


def information_order(table: pd.DataFrame, victim: str) -> Finding | None:
    """Information falls from clean over random noise and EM to MI-UE, for every seed of the perturbations."""
    order = [CLEAN, "random", "em", OURS]
    used = _informed(_select(table, order, victim))
    seeds = _by_seed(used, "mi")
    if set(order) - set(seeds) or seeds.empty:
        return None
    fall = -seeds[order].diff(axis=1).iloc[:, 1:].max(axis=1)
    values = ", ".join(f"{title(m)} {seeds[m].mean():.3f}" for m in order)
    return Finding(bool((fall > 0).all()), f"{values} nats; in this order in {_share(fall > 0)}", used, fall.min())


def correlation(table: pd.DataFrame, victim: str) -> Finding | None:
    """Over methods, the gap in information and the gap in accuracy rise together: the interval lies above 0.

    Variants of a method do not count: many of one method would say little about methods.
    """
    used = _of_others(_select(table, None, victim))
    used = _informed(used[~used["method"].str.contains(":")])
    means = _gaps(used, ["seed", "victim_seed"])
    gaps = pd.DataFrame({value: gap.mean() for value, gap in means.items()}).dropna()
    if len(gaps) < MANY:
        return None
    found = statistics.rank_correlation(gaps["mi"], gaps["test_accuracy"])
    text = f"Spearman {found.rho:.2f} ({found.low:.2f} to {found.high:.2f}) over {len(gaps)} methods"
    return Finding(found.low > 0, text, used, found.low)


def linear_unharmed(table: pd.DataFrame, victim: str) -> Finding | None:
    """What harms the residual victim does not harm a linear one."""
    deep = harm(_select(table, None, victim))
    used = _of_others(_select(table, None, "linear"))
    flat = harm(used)
    harmful = [m for m in deep.index[deep >= HARM] if m in flat]
    if not harmful:
        return None
    kept = _means(used[used["method"].isin(harmful)])
    text = f"linear victims keep {percent(kept)} under {'; '.join(map(title, harmful))}, and have "
    text += f"{percent(used.loc[used['method'] == CLEAN, 'test_accuracy'])} after clean training"
    return Finding(bool((flat[harmful] < HARM).all()), text, used)


def depth(table: pd.DataFrame, victim: str) -> Finding | None:
    """Under MI-UE the gaps in accuracy and in information both rank the victims by their depth."""
    used = _informed(_select(table, (CLEAN, OURS)))
    used = used.assign(family=used["victim"].str.split(":").str[0])
    lost = _gaps(used, ["family", "victim", "seed", "victim_seed"])
    means = {value: gap[OURS].dropna().groupby("family").mean() for value, gap in lost.items() if OURS in gap}
    places = [name for name in DEPTH if means and name in means["mi"].index]
    if len(places) < 4:
        return None
    gaps = {value: gap[places] for value, gap in means.items()}
    rho = {value: pd.Series(gap.to_numpy()).corr(pd.Series(range(len(gap))), "spearman") for value, gap in gaps.items()}
    points = ", ".join(f"{title(v)} {100 * gaps['test_accuracy'][v]:.1f}" for v in places)
    text = f"points lost: {points}; Spearman with depth {rho['test_accuracy']:.2f}, of the gap in information "
    return Finding(min(rho.values()) >= RANKED, f"{text}{rho['mi']:.2f}", used, min(rho.values()) - RANKED)


def transfer(table: pd.DataFrame, victim: str) -> Finding | None:
    """MI-UE, made with a residual network, harms those of other families; linear ones have a claim of their own."""
    used = _select(table, (CLEAN, OURS))
    used = used[~used["victim"].str.split(":").str[0].isin([*RESIDUAL, "linear"])]
    shares = {victim: harm(rows).get(OURS, np.nan) for victim, rows in used.groupby("victim")}
    shares = {victim: share for victim, share in shares.items() if np.isfinite(share)}
    if not shares:
        return None
    text = "; ".join(f"{title(victim)} {share:.2f}" for victim, share in shares.items())
    return Finding(min(shares.values()) >= HARM, f"share of the possible fall: {text}", used)


def budgets(table: pd.DataFrame, victim: str) -> Finding | None:
    """From 4/255 to 16/255 the accuracy under MI-UE stays within five points."""
    used = _select(table, (OURS,), victim, budget=None)
    levels = pd.to_numeric(used["budget"].str.removesuffix("/255"), errors="coerce")
    used = used[levels.between(4, 16)]
    means = used.groupby(levels)["test_accuracy"].mean()
    if len(means) < 3:
        return None
    text = ", ".join(f"{level:g}/255 {100 * mean:.1f} %" for level, mean in means.items())
    return Finding(bool(np.ptp(means) <= ALIKE), text, used)


def ablated(option: str, low: float, high: float, harmful: bool) -> Judge:
    """Make the judge of variants of MI-UE whose `option` lies between: each harms, or (`harmful` False) none does."""

    def varied(spec: str) -> bool:
        name, options = specs.parse(spec)
        return name == OURS and options.keys() == {option} and low <= options[option] <= high

    def judge(table: pd.DataFrame, victim: str) -> Finding | None:
        variants = sorted(filter(varied, set(table["method"])))
        used = _select(table, (CLEAN, OURS, *variants), victim)
        shares, means = harm(used), _means(used)
        found = [spec for spec in variants if spec in shares]
        if not found or OURS not in shares:
            return None
        holds = all((shares[spec] >= HARM) == harmful for spec in found) and shares[OURS] >= HARM
        return Finding(bool(holds), "; ".join(f"{title(m)} {100 * means[m]:.1f} %" for m in [OURS, *found]), used)

    return judge


def weightless(most: float) -> Judge:
    """Make the judge of the weight of the distance term: up to `most` MI-UE harms, and by about as much."""
    harms = ablated("zeta", 0, most, harmful=True)

    def judge(table: pd.DataFrame, victim: str) -> Finding | None:
        if (found := harms(table, victim)) is None:
            return None
        means = _means(found.used).drop(CLEAN)
        return replace(found, holds=found.holds and bool(np.ptp(means) <= ALIKE))

    return judge


def adversarial(levels: int, harmful: bool) -> Judge:
    """Make the judge of MI-UE behind adversarial training of that radius: it still does harm, or none."""

    def judge(table: pd.DataFrame, victim: str) -> Finding | None:
        trainings = [name for name in sorted(set(table["defense"])) if _radius(name) == levels]
        used = _select(table, (CLEAN, OURS), victim, trainings[:1])
        share, means = harm(used), _means(used)
        if OURS not in share:
            return None
        text = f"MI-UE {100 * means[OURS]:.1f} %, clean images {100 * means[CLEAN]:.1f} %, by {title(trainings[0])}"
        return Finding(bool((share[OURS] >= HARM) == harmful), text, used)

    return judge


def purification(table: pd.DataFrame, victim: str) -> Finding | None:
    """Behind the best kind of ISS no perturbation that harmed the victim does."""
    before = harm(_of_others(_select(table, None, victim)))
    harmful = before.index[before >= HARM]
    kinds = [name for name in set(table["defense"]) if name.partition(":")[0] == "iss"]
    used = _select(table, (CLEAN, *harmful), victim, kinds)
    left = pd.DataFrame({kind: harm(used[used["defense"] == kind]) for kind in kinds}).reindex(harmful).dropna()
    if left.empty:
        return None
    best = left.min(axis=1)
    text = "; ".join(f"{title(m)} {before[m]:.2f} to {best[m]:.2f}" for m in best.index)
    return Finding(bool((best < HARM).all()), f"share of the possible fall: {text}", used)


def mine_helps(table: pd.DataFrame, victim: str) -> Finding | None:
    """The MINE term lowers the accuracy under EM and under TAP; one that it raises is enough against it."""
    used = _select(table, None, victim)
    means = _means(used)
    pairs = {}
    for spec in means.index:
        name, options = specs.parse(spec)
        plain = ":".join(part for part in spec.split(":") if not part.startswith("mine="))
        if name in ("em", "tap") and options.get("mine", 0) > 0 and plain in means:
            pairs[spec] = plain
    gain = min((means[plain] - means[spec] for spec, plain in pairs.items()), default=0.0)
    if not pairs or (gain > 0 and {spec.partition(":")[0] for spec in pairs} != {"em", "tap"}):
        return None
    text = "; ".join(f"{title(m)} {100 * means[m]:.1f} % (without {100 * means[p]:.1f} %)" for m, p in pairs.items())
    return Finding(bool(gain > 0), text, used[used["method"].isin([*pairs, *pairs.values()])], gain)


def generation_time(table: pd.DataFrame, victim: str) -> Finding | None:
    """All images of CIFAR-10 are perturbed by the paper preset in no more than 3.6 hours."""
    used = table[(table["method"] == OURS) & (table["preset"] == "paper") & (table["n_train"] >= 50_000)]
    used = used[(used["surrogate"] == "resnet18") & used["seconds"].notna()]
    if used.empty:
        return None
    fastest = used.loc[used["seconds"].idxmin()]
    hours = fastest["seconds"] / 3600
    return Finding(bool(hours <= 3.6), f"{hours:.1f} hours on {fastest['device']}", used)


def harm(table: pd.DataFrame) -> pd.Series:
    """Share of the possible fall of each method under one victim and training, from means over seeds.

    Empty where clean training is missing.
    """
    means = _means(table)
    if CLEAN not in means:
        return pd.Series(dtype=float)
    return (means[CLEAN] - means.drop(CLEAN)) / (means[CLEAN] - 1 / table["n_classes"].min())


def _of_others(table: pd.DataFrame) -> pd.DataFrame:
    """The trials of methods that are not of this book."""
    return table[~table["method"].str.split(":").str[0].isin(OF_THIS_BOOK)]


def _means(table: pd.DataFrame) -> pd.Series:
    """The mean accuracy under each method."""
    return table.groupby("method")["test_accuracy"].mean()


def _select(
    table: pd.DataFrame,
    methods: Sequence[str] | None = None,
    victim: str | None = None,
    defense: Sequence[str] = (NONE,),
    budget: str | None = BUDGET,
) -> pd.DataFrame:
    """Trials of bounded methods with all images perturbed, at the budget, for these methods, victim and defenses.

    What cannot be judged is left out. None stands for all; what needs no perturbation is there at every budget.
    """
    kept = table["learned"] & (table["ratio"] == 1) & (table["budget"] != UNBOUNDED) & table["defense"].isin(defense)
    if budget is not None:
        kept &= table["budget"].isin([budget, NONE])
    if methods is not None:
        kept &= table["method"].isin(methods)
    if victim is not None:
        kept &= table["victim"] == victim
    return table[kept]


def _informed(table: pd.DataFrame) -> pd.DataFrame:
    """The trials whose information can be judged, of one estimator, the commonest: levels of two do not compare."""
    known = table[table["informed"] & table["mi"].notna()]
    return known[known["estimator"] == next(iter(known["estimator"].mode()), None)]


def _gaps(table: pd.DataFrame, victim: list[str]) -> dict[str, pd.DataFrame]:
    """How far each method leaves accuracy and information of the same `victim` below clean training, where both are."""
    found = {}
    for value in ("test_accuracy", "mi"):
        met = table.pivot_table(index=victim, columns="method", values=value)
        if CLEAN in met:
            found[value] = -met.drop(columns=CLEAN).sub(met[CLEAN], axis=0)
    return found


def _by_seed(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """One row for each perturbation seed, one column for each method: means over the victims that all of them met."""
    met = table.pivot_table(index=["seed", "victim_seed"], columns="method", values=value, sort=False).dropna()
    return met.groupby("seed", sort=False).mean()


def _radius(defense: str) -> int | None:
    """Grey levels of an adversarial training; None for another defense."""
    if not defense.startswith("adversarial_training"):
        return None
    built = defenses.build(defense)
    return round(255 * built.epsilon) if isinstance(built, AdversarialTraining) else None


def _share(won: pd.Series) -> str:
    return f"{int(won.sum())} of {len(won)} seed{'s' if len(won) > 1 else ''}"
