"""Mutual information between two sets of numbers or of feature vectors, in nats.

One-dimensional estimators (`mi_histogram`, `mi_ksg`) are batched over slices; `sliced_mi` carries any of them
over to feature matrices by random projections; `null`, `ceiling` and `with_controls` say what a value has to
be compared with.
"""

from miue.mi.estimate import Estimate
from miue.mi.histogram import default_bins, mi_histogram
from miue.mi.ksg import mi_ksg
from miue.mi.sliced import ESTIMATORS, Controls, ceiling, null, sliced_mi, with_controls

__all__ = [
    "ESTIMATORS",
    "Controls",
    "Estimate",
    "ceiling",
    "default_bins",
    "mi_histogram",
    "mi_ksg",
    "null",
    "sliced_mi",
    "with_controls",
]
