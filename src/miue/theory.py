"""Bounds on the mutual information of clean and perturbed features, from labels and covariances alone.

X is a training image, X' its perturbed copy, Y its class; Z = g(X) and Z' = g(X') are features in R^d. Everything
is in nats. Sigma_y is the covariance of Z' within class y.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from miue.errors import InputError, choose

COVARIANCES = ("ledoit_wolf", "empirical")


def entropy(labels: Tensor | np.ndarray) -> float:
    """Return H(Y) in nats of the frequencies of `labels` (n,): 0 for one class, log C for C equal ones.

    Raises:
        InputError: no labels, or not a vector.
    """
    _, counts = _classes(labels)
    return float(torch.special.entr(counts.double() / counts.sum()).sum())


def noise_bound(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    noise_std: float,
    *,
    covariance: str = "ledoit_wolf",
) -> float:
    """Bound I(Z; Z' + s N), N independent standard normal noise in R^d, in nats: at most

        H(Y) + 1/2 E_Y log det(I + Sigma_Y / s^2).

    Holds for any Z, and for features of any distribution with these covariances: given the class, a normal
    variable has the largest entropy for its covariance. Compare it only with the mutual information of the same
    noised features. For a bound along one direction phi, pass `features @ phi`.

    The covariances are estimated, and the mean log det of an empirical covariance lies under the log det of the
    truth. Measured with 400 samples in each of 10 classes and d = 512, s^2 from 1 to 0.01, one draw: for independent
    unit-variance features the empirical bound is 20 to 28 % low and the shrunk one 0.2 % low at most; for eigenvalues
    falling as 1/i, 12 to 26 % and 4 to 9 %. With 4,000 samples per class none is more than 2.3 % low.

    Args:
        features: (n, d), or (n,) for d = 1: those of the perturbed pictures, Z'.
        labels: (n,) classes; each needs two samples or more.
        noise_std: s > 0, in the units of the features.
        covariance: "ledoit_wolf" (Ledoit and Wolf, 2004, shrunk towards a multiple of the identity) or
            "empirical" (unbiased).

    Raises:
        InputError: shapes that do not match, NaN or infinity, a class of one sample, noise_std not above 0.
    """
    if not (math.isfinite(noise_std) and noise_std > 0):
        raise InputError(f"noise_std: {noise_std} must be a finite number above 0, in the units of the features")
    log_dets = [
        share * torch.log1p(_eigenvalues(sigma) / noise_std**2).sum()
        for share, sigma in _covariances(features, labels, covariance)
    ]
    return entropy(labels) + 0.5 * float(sum(log_dets))


def covariance_bound(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    conditional_entropy: float,
    *,
    covariance: str = "ledoit_wolf",
) -> float:
    """Bound I(Z; Z') in nats: at most

        d/2 log(2 pi e) + 1/2 E_Y log det Sigma_Y + H(Y) - h(Z'|Z),

    with a minus before h(Z'|Z). The caller has to know that conditional entropy, so this is for cases whose
    truth is known; it is infinite when Z' is a function of Z. For real features use `noise_bound`.

    Args:
        features: (n, d), or (n,) for d = 1: Z'.
        labels: (n,) classes; each needs two samples or more.
        conditional_entropy: h(Z'|Z) in nats, finite.
        covariance: "ledoit_wolf" or "empirical", as in `noise_bound`.

    Raises:
        InputError: as `noise_bound`; a singular covariance (a dead unit, or an empirical one with no more samples
            in a class than features), for which the bound says nothing.
    """
    if not math.isfinite(conditional_entropy):
        raise InputError(f"conditional_entropy: {conditional_entropy} is not finite; the bound then says nothing")
    total = 0.0
    for share, sigma in _covariances(features, labels, covariance):
        values = _eigenvalues(sigma)
        if values[0] <= len(sigma) * torch.finfo(torch.float64).eps * values[-1]:
            raise InputError(
                f"features: the covariance of a class is singular (smallest eigenvalue {float(values[0]):.3g}); "
                "drop dead units or use noise_bound"
            )
        total += share * float((values.log() + math.log(2 * math.pi * math.e)).sum())
    return 0.5 * total + entropy(labels) - conditional_entropy


def within_class_spectrum(features: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> Tensor:
    """Return the eigenvalues (d,) float64, descending, of the pooled covariance within classes, E_Y Sigma_Y.

    Their sum is the mean squared distance of a feature vector from the mean of its class.

    Args:
        features: (n, d), or (n,) for d = 1.
        labels: (n,) classes.

    Raises:
        InputError: shapes that do not match, NaN or infinity.
    """
    z, member, counts = _checked(features, labels)
    means = torch.zeros(len(counts), z.shape[1], dtype=z.dtype).index_add_(0, member, z) / counts[:, None]
    centred = z - means[member]
    return _eigenvalues(centred.T @ centred / len(z)).flip(0)


def _covariances(
    features: Tensor | np.ndarray, labels: Tensor | np.ndarray, kind: str
) -> Iterator[tuple[float, Tensor]]:
    """Yield for each class its share of the samples and its covariance (d, d)."""
    choose("covariance", kind, COVARIANCES)
    z, member, counts = _checked(features, labels)
    if counts.min() < 2:
        raise InputError("labels: a class has one sample only; a covariance needs two or more in each class")
    for index, count in enumerate(counts.tolist()):
        own = z[member == index]
        if kind == "ledoit_wolf":
            sigma = torch.from_numpy(ledoit_wolf(own.numpy())[0])
        else:
            sigma = own.T.cov().reshape(z.shape[1], z.shape[1])
        yield count / len(z), sigma


def _eigenvalues(sigma: Tensor) -> Tensor:
    """Ascending eigenvalues (d,) of a covariance; rounding may bring them under 0, where none belongs."""
    return torch.linalg.eigvalsh(sigma).clamp(min=0)


def _checked(features: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (n, d) float64 on the CPU, class index of each (n,) and samples of each class (C,)."""
    z = torch.as_tensor(features).detach().to("cpu", torch.float64)
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or z.numel() == 0:
        raise InputError(f"features: shape {tuple(z.shape)}; pass (samples, features)")
    if not z.isfinite().all():
        raise InputError("features: some values are NaN or infinite; remove or mend them first")
    member, counts = _classes(labels)
    if len(member) != len(z):
        raise InputError(f"labels: {len(member)} labels for {len(z)} samples; pass one for each")
    return z, member, counts


def _classes(labels: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the class index (n,) int64 of each sample and the number of samples (C,) int64 of each class."""
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.ndim != 1 or len(labels) == 0:
        raise InputError(f"labels: shape {tuple(labels.shape)}; pass one label for each sample, (n,)")
    _, member, counts = labels.unique(return_inverse=True, return_counts=True)
    return member, counts
