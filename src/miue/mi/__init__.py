"""Mutual information between two sets of numbers, of classes or of feature vectors, in nats.

Estimators for pairs of numbers (`mi_histogram`, `mi_kde`, `mi_ksg`, `mi_neural`; `mi_ross` where one is a class,
`mi_mixed` where some values come with a probability of their own) are batched over slices, those for vectors end in
`_joint`; `mi_discrete` and `normalised_mi` are for two labels; `sliced_mi` and `conditional_mi` carry them over to
feature matrices by random projections, `max_sliced_mi` by the best ones,
`shared_critic_mi` with one critic for all; `null`, `ceiling` and `with_controls` say what
a value has to be compared with; `tasks` holds distributions whose truth is known.
"""

from miue.mi import bounds
from miue.mi.controls import Controls, ceiling, null, shuffled, with_controls
from miue.mi.discrete import mi_discrete, mi_mixed, normalised_mi
from miue.mi.estimate import Estimate
from miue.mi.histogram import default_bins, mi_histogram
from miue.mi.kde import mi_kde
from miue.mi.ksg import mi_ksg, mi_ksg_joint
from miue.mi.max_sliced import MaxSliced, max_sliced_mi
from miue.mi.neural import mi_neural, mi_neural_joint
from miue.mi.projections import draw_directions
from miue.mi.ross import mi_ross
from miue.mi.shared_critic import shared_critic_mi
from miue.mi.sliced import DISCRETE, ESTIMATORS, JOINT, conditional_mi, sliced_mi
from miue.mi.training import Neural

__all__ = [
    "DISCRETE",
    "ESTIMATORS",
    "JOINT",
    "Controls",
    "Estimate",
    "MaxSliced",
    "Neural",
    "bounds",
    "ceiling",
    "conditional_mi",
    "default_bins",
    "draw_directions",
    "max_sliced_mi",
    "mi_discrete",
    "mi_histogram",
    "mi_kde",
    "mi_ksg",
    "mi_ksg_joint",
    "mi_mixed",
    "mi_neural",
    "mi_neural_joint",
    "mi_ross",
    "normalised_mi",
    "null",
    "shared_critic_mi",
    "shuffled",
    "sliced_mi",
    "with_controls",
]
