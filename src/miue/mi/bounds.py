"""Bounds on the mutual information of clean and perturbed features, and what it says about errors.

X is a training image, X' its perturbed copy, Y its class; Z = g(X) and Z' = g(X') are features in R^d. Everything
is in nats. Sigma_y is the covariance of Z' within class y. The statistics that the bounds are made of live in
`miue.mi.statistics` and have their names here too.
"""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import entr
from torch import Tensor

from miue.data.arrays import as_finite, real, whole
from miue.errors import InputError
from miue.mi.statistics import (
    COVARIANCES,
    class_covariances,
    eigenvalues,
    entropy,
    label_information,
    linear_cka,
    participation_ratio,
    prediction_disagreement,
    within_class_spectrum,
)

__all__ = [
    "COVARIANCES",
    "class_covariances",
    "covariance_bound",
    "entropy",
    "fano_bound",
    "label_information",
    "linear_cka",
    "noise_bound",
    "participation_ratio",
    "prediction_disagreement",
    "sliced_noise_bound",
    "within_class_spectrum",
]

UNIT = 1e-6  # how far the length of a direction may be from 1: float32 rounding
ROUNDING = 1e-9  # nats by which an entropy may exceed its maximum


def noise_bound(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    noise_std: float,
    *,
    covariance: str = "ledoit_wolf",
    class_information: float | None = None,
) -> float:
    """Bound I(Z; Z' + s N), N independent standard normal noise in R^d, in nats: at most

        min{H(Y), I(Z;Y)} + 1/2 E_Y log det(I + Sigma_Y / s^2).

    Without `class_information` it is the first of the two that stands there, and the bound never falls below H(Y).
    Holds for any Z, and for features of any distribution with these covariances: given the class, a normal
    variable has the largest entropy for its covariance. Compare it only with the mutual information of the same
    noised features. Along single directions: `sliced_noise_bound`.

    The covariances are estimated, and the mean log det of an empirical covariance lies under the log det of the
    truth. Measured with 400 samples in each of 10 classes and d = 512, s^2 from 1 to 0.01, one draw: for independent
    unit-variance features the empirical bound is 20 to 28 % low and the shrunk one 0.2 % low at most; for eigenvalues
    falling as 1/i, 12 to 26 % and 4 to 9 %. With 4,000 samples per class none is more than 2.3 % low.

    Args:
        features: (n, d), or (n,) for d = 1: those of the perturbed images, Z'.
        labels: (n,) classes; each needs two samples or more.
        noise_std: s > 0, in the units of the features.
        covariance: "ledoit_wolf" (Ledoit and Wolf, 2004, shrunk towards a multiple of the identity) or
            "empirical" (unbiased).
        class_information: an *upper* bound of I(Z;Y) in nats, Z the features of the clean images; None for H(Y),
            which always is one. I(Z'+sN;Y) may stand for it as well. With a lower bound of I(Z;Y), such as H(Y) less
            a held-out cross-entropy, the result describes and bounds nothing. A negative value, as a noisy estimate
            may be, counts as 0.

    Raises:
        InputError: shapes that do not match, NaN or infinity, a class of one sample, noise_std not above 0.

    Example:
        >>> import miue, torch
        >>> labels = torch.arange(1000) % 2
        >>> z = 5 * labels[:, None] + torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> round(miue.bounds.noise_bound(z, labels, noise_std=1.0), 1)  # log 2 + 3/2 log 2
        1.7
    """
    noise_std = _noise(noise_std)
    base = float(_class_part(labels, class_information))
    log_dets = [
        share * torch.log1p(eigenvalues(sigma) / noise_std**2).sum()
        for share, sigma in class_covariances(features, labels, covariance=covariance)
    ]
    return base + 0.5 * float(sum(log_dets))


def sliced_noise_bound(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    noise_std: float,
    *,
    directions: Tensor | np.ndarray,
    class_information: float | Tensor | np.ndarray | None = None,
) -> Tensor:
    """Bound I(Z; phi'(Z' + s N)) in nats, direction by direction: at most

        min{H(Y), I(Z;Y)} + 1/2 E_Y log(1 + phi' Sigma_Y phi / s^2).

    By data processing it bounds I(theta'Z; phi'(Z' + s N)) as well, whatever theta, so each slice of a sliced mutual
    information; for these I(theta'Z;Y) may stand in the place of I(Z;Y).

    `sliced_mi` standardises the columns it is given, which would rescale the noise with the features. To compare like
    with like, as below, standardise Z' once, without constant columns, add the noise to that, and slice both without
    standardising again. The variances along phi are the unbiased empirical ones of each class: in one dimension nothing
    has to be shrunk, and their logarithms are too low by no more than about 1 / n_y.

    Args:
        features: (n, d): Z' without the noise.
        labels: (n,) classes; each needs two samples or more.
        noise_std: s > 0, in the units of the features.
        directions: (slices, d) unit vectors phi.
        class_information: as in `noise_bound`, one value for all slices or (slices,) of them; None for H(Y).

    Returns:
        (slices,) float64.

    Raises:
        InputError: as `noise_bound`; directions of another width, NaN, or not of length 1; class_information of
            another length.

    Example:
        >>> import miue, torch
        >>> from miue.mi import draw_directions
        >>> labels = torch.arange(500) % 2
        >>> z, noise = torch.randn(2, 500, 8, generator=torch.Generator().manual_seed(0))
        >>> _, phi = draw_directions(8, 8, n_slices=16, seed=0)
        >>> bound = miue.bounds.sliced_noise_bound(z, labels, 1.0, directions=phi)
        >>> measured = miue.sliced_mi(z, z + noise, n_slices=16, seed=0, standardise=False).per_slice
        >>> bool((torch.from_numpy(measured) <= bound).all())
        True
    """
    noise_std, features = _noise(noise_std), as_finite("features", features).cpu()
    covariances = class_covariances(features, labels, covariance="empirical")
    phi = as_finite("directions", directions).cpu()
    width = features.shape[1] if features.ndim == 2 else 1
    if phi.ndim != 2 or len(phi) == 0 or phi.shape[1] != width:
        raise InputError(f"directions: shape {tuple(phi.shape)}; pass (slices, {width}) for these features")
    if not ((phi.norm(dim=1) - 1).abs() <= UNIT).all():
        raise InputError("directions: some have no length of 1; divide each by its norm")
    total = _class_part(labels, class_information, slices=len(phi))
    for share, sigma in covariances:
        variance = ((phi @ sigma) * phi).sum(1).clamp(min=0)  # under 0 by rounding only
        total = total + 0.5 * share * torch.log1p(variance / noise_std**2)
    return total


def covariance_bound(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    conditional_entropy: float,
    *,
    covariance: str = "ledoit_wolf",
) -> float:
    """Bound I(Z; Z') in nats: at most

        d/2 log(2 pi e) + 1/2 E_Y log det Sigma_Y + H(Y) - h(Z'|Z),

    with a minus before the last term. The caller has to know that conditional entropy, so this is for cases whose
    truth is known; it is infinite when Z' is a function of Z. For real features use `noise_bound`.

    Args:
        features: (n, d), or (n,) for d = 1: Z'.
        labels: (n,) classes; each needs two samples or more.
        conditional_entropy: `h(Z'|Z)` in nats, finite.
        covariance: "ledoit_wolf" or "empirical", as in `noise_bound`.

    Raises:
        InputError: as `noise_bound`; a singular covariance (a dead unit, or an empirical one with no more samples
            in a class than features), for which the bound says nothing.

    Example:
        >>> import math, miue, torch
        >>> z = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
        >>> z_shown = 0.8 * z + 0.6 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
        >>> noise_entropy = 0.5 * math.log(2 * math.pi * math.e * 0.36)
        >>> round(miue.bounds.covariance_bound(z_shown, torch.zeros(2000), noise_entropy), 1)  # the truth: 0.511
        0.5
    """
    conditional_entropy = real("conditional_entropy", conditional_entropy, advice=", in nats")
    total = 0.0
    for share, sigma in class_covariances(features, labels, covariance=covariance):
        values = eigenvalues(sigma)
        if values[0] <= len(sigma) * torch.finfo(torch.float64).eps * values[-1]:
            raise InputError(
                f"features: the covariance of a class is singular (smallest eigenvalue {float(values[0]):.3g}); "
                "drop dead units or use noise_bound"
            )
        total += share * float((values.log() + math.log(2 * math.pi * math.e)).sum())
    return 0.5 * total + entropy(labels) - conditional_entropy


def fano_bound(mi: float, n_classes: int, prediction_entropy: float) -> float:
    """Return the smallest share of samples on which two predictions can differ, by Fano's inequality.

    With U = f(X), V = f(X') among C classes and d = P(U != V),

        h_b(d) + d log(C - 1) >= H(V | U) >= H(V) - I(Z;Z'),

    h_b the entropy of a coin (Fano, 1961; Cover and Thomas, 2006, section 2.10). The left side grows from 0 to
    log C on 0 <= d <= 1 - 1/C; the result is the d at which it reaches the right side. If e' is the error of f on the
    perturbed images, its error on the clean ones is at least d - e'.

    Args:
        mi: an *upper* bound of I(Z;Z'), or I(U;V) itself, in nats. At `prediction_entropy` and above nothing is
            forced and the result is 0. A negative value, as a noisy estimate may be, counts as 0: no mutual
            information is less.
        n_classes: C, at least 2.
        prediction_entropy: H(V) in nats, from 0 to log C.

    Returns:
        d in [0, 1 - 1/C].

    Raises:
        InputError: a value out of range or not finite.

    Example:
        >>> import math, miue
        >>> round(miue.bounds.fano_bound(mi=0.5, n_classes=10, prediction_entropy=math.log(10)), 3)
        0.505
    """
    n_classes, mi = whole("n_classes", n_classes, 2), real("mi", mi, advice=", in nats")
    prediction_entropy = real("prediction_entropy", prediction_entropy, advice=", in nats")
    largest, top = math.log(n_classes), 1 - 1 / n_classes
    if not -ROUNDING <= prediction_entropy <= largest + ROUNDING:
        raise InputError(
            f"prediction_entropy: {prediction_entropy} nats; {n_classes} classes allow 0 to log C = {largest:.4f}"
        )

    def short_by(d: float) -> float:
        return float(entr(d) + entr(1 - d)) + d * math.log(n_classes - 1) - needed

    needed = prediction_entropy - max(mi, 0.0)
    if needed <= 0:
        return 0.0
    if short_by(top) <= 0:
        return top
    return float(brentq(short_by, 0.0, top, xtol=1e-14))


def _noise(noise_std: object) -> float:
    return real("noise_std", noise_std, 0, " above 0, in the units of the features")


def _class_part(
    labels: Tensor | np.ndarray, information: float | Tensor | np.ndarray | None, slices: int = 0
) -> Tensor:
    """Return min{H(Y), information} in nats as float64: () without slices, else (slices,)."""
    at_most = entropy(labels)
    given = as_finite("class_information", at_most if information is None else information).cpu()
    if information is not None and given.ndim == 0:
        real("class_information", information, advice=", in nats, or None for H(Y)")  # a truth value is none
    if given.ndim and given.shape != (slices,):
        wanted = f"one number or ({slices},)" if slices else "one number"
        raise InputError(f"class_information: shape {tuple(given.shape)}; pass {wanted}")
    return given.clamp(0, at_most).expand(slices) if slices else given.clamp(0, at_most)
