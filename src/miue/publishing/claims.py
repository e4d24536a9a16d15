"""What the paper claims, and what the published trials say about it: one verdict for each claim."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from miue.experiments.judging import CANNOT
from miue.experiments.trials import NONE
from miue.publishing import evidence
from miue.publishing.evidence import Finding, Judge
from miue.publishing.leaderboard import SCALES, SETTING

UNTESTED = "untested here"
NO_EVIDENCE = "clean training ends within five points of guessing, or what is shuffled seems to share something"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that an experiment can decide.

    Args:
        text: the sentence, in our words.
        reported: the paper's numbers.
        judge: decides it in one setting.
        how: when it counts as holding.
        family: the paper's data set that it is about, as in `reference.DATA`. Trials on its images and classes are
            evidence, at our scale where encoding, number of images or effort are others.
    """

    text: str
    reported: str
    judge: Judge
    how: str
    family: str = "cifar10"


@dataclass(frozen=True)
class Verdict:
    """A claim (text, the paper's numbers, how it is judged) and what became of it.

    Args:
        verdict: in words: "confirmed" or "not confirmed" in the paper's own setting; "holds at our scale" or "not
            confirmed at our scale" in another; "cannot be judged" there, where trials speak about it but none of them
            is evidence (see `judging`); or "untested here".
        numbers: what says so, and where it was measured.
        against: for a claim that ranks, what speaks most strongly against the verdict in another setting, and where
            that was measured; "" where none does.
        pages: that together show it, as paths in the book without their suffix.
    """

    text: str
    reported: str
    how: str
    verdict: str
    numbers: str = ""
    against: str = ""
    pages: tuple[str, ...] = ()


SEEDS = "for each seed of the perturbations, in the mean over victims"
ORDER = f"MI-UE is lower than each of EM, TAP, NTGA, AR, REM, SEM, GUE and TUE that was measured, {SEEDS}"

CLAIMS = (
    Claim(
        "MI-UE leaves victims the lowest accuracy of all methods: CIFAR-10, ResNet-18.",
        "9.95 %; next TAP 11.21 %, EM 24.17 %",
        evidence.lowest,
        ORDER,
    ),
    Claim("The same on CIFAR-100.", "1.17 %; next TUE 1.34 %, EM 2.09 %", evidence.lowest, ORDER, "cifar100"),
    Claim(
        "The same on a subset of ImageNet with 100 classes.",
        "1.03 %; next EM 1.26 %",
        evidence.lowest,
        ORDER,
        "imagenet_subset",
    ),
    Claim(
        "Methods that work lower the information that clean and perturbed features share: clean, random noise, EM, "
        "MI-UE from high to low.",
        "0.712, 0.675, 0.640, 0.497",
        evidence.information_order,
        f"the four means over random directions fall in this order, {SEEDS}",
    ),
    Claim(
        "Over methods, the gap in information goes with the gap in accuracy.",
        "Spearman 0.78",
        evidence.correlation,
        f"at least {evidence.MANY} methods within the budget; the bootstrap interval of Spearman's correlation lies "
        "above 0",
    ),
    Claim(
        "Linear networks keep their accuracy on data that brings deep ones to guessing.",
        "linear above 30 %, deep 10 %",
        evidence.linear_unharmed,
        "no method that harms the residual victim harms the linear one",
    ),
    Claim(
        "The deeper the victim, the larger the fall of accuracy and of information.",
        "MI-UE: 38 points lost by a 2-layer perceptron, 48 by one of 3 layers, 70 by LeNet-5, 84.5 by ResNet-18",
        evidence.depth,
        f"at least four victims; Spearman's correlation of depth with both gaps is {evidence.RANKED} or more",
    ),
    Claim(
        "MI-UE made with ResNet-18 transfers to other victims.",
        "ResNet-50 9.98 %, DenseNet-121 9.93 %, ViT 15.51 %, LeNet-5 10.80 %, perceptrons 14.16 and 17.82 %",
        evidence.transfer,
        "it harms every victim measured that is neither residual, as its surrogate is, nor linear",
    ),
    Claim(
        "MI-UE hardly depends on the budget from 4/255 to 16/255.",
        "no number known to us",
        evidence.budgets,
        "at least three budgets; the means over seeds lie within five points",
    ),
    Claim(
        "Without its similarity term MI-UE loses most of its effect.",
        "51.65 % instead of 9.95 %",
        evidence.ablated("similarity", 0, 0, harmful=False),
        "with the term it harms, without it no more",
    ),
    Claim(
        "The weight of its distance term makes no difference up to 0.1, and CIFAR-10 does without the term.",
        "10.09 % without",
        evidence.weightless(0.1),
        "it harms, and the means at every such weight that was measured lie within five points",
    ),
    Claim(
        "A weight of 10 or more destroys the effect.",
        "above 45 %",
        evidence.ablated("zeta", 10, math.inf, harmful=False),
        "at 0.1 it harms, at such a weight no more",
    ),
    Claim(
        "MI-UE resists adversarial training at 4/255.",
        "31.79 %; clean images 89.77 %",
        evidence.adversarial(4, harmful=True),
        "it still harms, measured from clean images under the same training",
    ),
    Claim(
        "Adversarial training at 8/255 brings most of the accuracy back.",
        "70.56 %; clean images 85.10 %",
        evidence.adversarial(8, harmful=False),
        "it harms no more, measured from clean images under the same training",
    ),
    Claim(
        "Purification (JPEG, grey, fewer bits) brings every method back.",
        "above 80 %",
        evidence.purification,
        "behind the best of the three that was measured no method harms that did before",
    ),
    Claim(
        "A MINE term improves EM and TAP.",
        "EM 15.62 % instead of 24.17 %, TAP 10.01 % instead of 11.21 %",
        evidence.mine_helps,
        "both accuracies are lower with the term than without, in the mean over seeds; one that is higher decides "
        "against it",
    ),
    Claim(
        "CIFAR-10 is perturbed in 3.6 hours.",
        "3.6 hours on the authors' GPU",
        evidence.generation_time,
        "all 50,000 images, paper preset, ResNet-18: no more than 3.6 hours on whatever device",
    ),
)


ANSWERED = (
    Verdict(
        "The shared information has an upper bound in which only the covariance of perturbed features within each "
        "class can be adjusted.",
        "a theorem for features that are nearly normal given the class",
        "by proof, not by runs",
        "holds as mathematics",
        "The chapter proves such bounds without normality and gives their conditions: the entropy of the perturbed "
        "features given the clean ones enters with a minus, the log-determinant alone means nothing, and the bound of "
        "noised features gets below the entropy of the labels only where the features lose the class.",
        pages=("covariance",),
    ),
    Verdict(
        "AR noise is less linearly separable than clean images, and works nevertheless.",
        "AR 17.41 %",
        "held-out accuracy of a linear network on Digits-M, in the chapter",
        "not confirmed at our scale",
        "Under AR a linear network reads images about as well as clean ones, no worse. At its published norm AR takes "
        "one of four small residual networks and one of two VGG-11 to less than half, and does the others no harm.",
        pages=("separability",),
    ),
)
"""Claims that chapters answer, and no record of a run."""


def verdicts(trials: pd.DataFrame) -> list[Verdict]:
    """Judge each of `CLAIMS` by published trials; `ANSWERED` come behind them.

    Args:
        trials: what `leaderboard.trials` returns.
    """
    return [*(judge(claim, trials) for claim in CLAIMS), *ANSWERED]


def judge(claim: Claim, trials: pd.DataFrame) -> Verdict:
    """Judge a claim by the setting that weighs most among those that say something about it.

    Settings weigh by scale; then by victims that are no twins of the surrogate; then by the number of training images,
    of seeds, of methods. Only trials in the paper's own setting confirm a claim or fail to; all others speak about our
    scale. Of a claim that ranks, the setting that contradicts the verdict by the largest margin is named too.
    """
    about = claim.text, claim.reported, claim.how
    settings = list(_settings(trials[trials["family"] == claim.family]))
    if found := _findings(claim, settings):
        first, *others = found
        contrary = [one for one in others if one.margin is not None and one.holds != first.holds]
        against = max(contrary, key=lambda one: abs(one.margin or 0), default=None)
        word = "not confirmed" if not first.holds else "holds" if _where(first.used) else "confirmed"
        shown = first.used if against is None else pd.concat([first.used, against.used])
        told = "" if against is None else f"{against.numbers} ({_measured(against.used)})"
        numbers = f"{first.numbers} ({_measured(first.used)})"
        return Verdict(*about, word + _where(first.used), numbers, told, _pages(shown))
    if found := _findings(claim, [table.assign(learned=True, informed=True) for table in settings]):
        used = found[0].used
        return Verdict(*about, CANNOT + _where(used), f"{NO_EVIDENCE} ({_measured(used)})", pages=_pages(used))
    return Verdict(*about, UNTESTED)


def _findings(claim: Claim, settings: Iterable[pd.DataFrame]) -> list[Finding]:
    """What each setting says about a claim, by each of its residual victims; nothing of those that say nothing."""
    judged = (claim.judge(setting, victim) for setting in settings for victim in _residual(setting))
    return [finding for finding in judged if finding]


def _where(used: pd.DataFrame) -> str:
    return "" if used["same"].all() else " at our scale"


def _measured(used: pd.DataFrame) -> str:
    """Where trials were measured."""
    first, seeds = used.iloc[0], used.groupby("method")["seed"].nunique()
    times = " to ".join(map(str, sorted({seeds.min(), seeds.max()})))
    kin = "" if (used["twin"] == NONE).all() else ", victims begin as the surrogate did"
    return f"{first['data']}, {first['n_train']:,} images, {first['scale']}, seeds: {times}{kin}"


def _pages(used: pd.DataFrame) -> tuple[str, ...]:
    """Pages that together show all trials, few of them: always the one that shows most of what is left."""
    left, found = [names.split(", ") for names in used["pages"]], []
    while left:
        shown = Counter(name for names in left for name in names)
        found.append(min(shown, key=lambda name: (-shown[name], name)))
        left = [names for names in left if found[-1] not in names]
    return tuple(f"results/{name}" for name in found)


def _settings(trials: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The trials of each setting, surrogate and kind of twin, with those that need no surrogate; the weightiest first.

    Perturbations that were made with another network than a residual one are left out: the paper's are of ResNet-18.
    A victim of another architecture than the surrogate is a stranger to it whatever the others are, and stands with
    all.
    """
    found = []
    for _, table in trials.groupby(SETTING, dropna=False):
        for surrogate in filter(_is_residual, sorted(set(table["surrogate"]))):
            own = table[table["surrogate"].isin([surrogate, NONE])]
            kin = own["victim"] == own["surrogate"]
            for twin in sorted(set(own.loc[kin, "twin"])) or [NONE]:
                found.append(own[~kin | (own["twin"] == twin)])

    def weight(table: pd.DataFrame) -> tuple[int, bool, int, int, int]:
        scale = table["scale"].iloc[0]
        known = SCALES.index(scale) if scale in SCALES else -1
        strangers = (table["twin"] == NONE).all()
        counts = table["seed"].nunique(), table["method"].nunique()
        return known, strangers, int(table["n_train"].iloc[0]), *counts

    yield from sorted(found, key=weight, reverse=True)


def _residual(table: pd.DataFrame) -> list[str]:
    """The residual victims, the one most like the paper's ResNet-18 first: full width before thinner, by name."""
    names = {victim: victim.partition(":")[0] for victim in sorted(set(table["victim"]))}
    kept = filter(_is_residual, names)
    return sorted(kept, key=lambda victim: (names[victim] != "resnet18", ":" in victim))


def _is_residual(network: str) -> bool:
    return network.partition(":")[0] in evidence.RESIDUAL
