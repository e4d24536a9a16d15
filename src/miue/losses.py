"""The MI-UE objective, as pure functions of a mini-batch of features and its labels.

Labels are classes, (B,) int64, or sets of labels, (B, labels) bool, of which two images may share a part: a pair then
counts by the Jaccard index of its sets, the size of what they share over the size of both together, in [0, 1]. Of sets
of one label each, that is what their classes say.

Both sums of the loss include the pair (i, i), as in the authors' code; the value therefore depends on who shares
the batch, and pgd passes use class-balanced batches where they can. Both terms are computed in float64, whatever the
features are: towards the end of a run the features of a class nearly coincide, and their differences are then below
the last digit of a float32 product. Reference: Zhu, Miao, Dong & Gao, "Why Do
Unlearnable Examples Work", ICLR 2026 (arXiv 2603.03725).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from miue.errors import InputError

__all__ = ["agreement_term", "distance_term", "information_term", "mi_ue_loss", "similarity_term"]


LARGEST_CORRELATION = 0.999  # of two slices; the kernel of their joint density must keep a width


def _alike(labels: Tensor) -> Tensor:
    """How much of their labels the images of a batch share, (B, B) in [0, 1], float64: of classes, all or nothing."""
    if labels.ndim == 1:
        return (labels[:, None] == labels[None, :]).double()
    sets = labels.double()
    shared, sizes = sets @ sets.T, sets.sum(1)
    return shared / (sizes[:, None] + sizes - shared).clamp(min=1)


def _shares(labels: Tensor) -> Tensor:
    """What each image weighs where all classes of the batch weigh the same, (B,) float64; the sum is 1.

    Raises:
        InputError: sets of labels, which form no classes.
    """
    if labels.ndim > 1:
        raise InputError(f"balanced: True with sets of labels, {tuple(labels.shape)}; it must be False for them")
    each = 1 / _alike(labels).sum(1)
    return each / each.sum()


def similarity_term(
    features: Tensor, labels: Tensor, temperature: float = 0.1, self_pairs: bool = True, balanced: bool = False
) -> Tensor:
    """Pull each class together and push classes apart, by angle.

        mean_i -log( sum_{j: y_j = y_i} exp(cos(z_i, z_j) / t) / sum_j exp(cos(z_i, z_j) / t) )

    Args:
        features: (B, d) float, one row per image.
        labels: (B,) int64, or (B, labels) bool.
        temperature: t > 0, dimensionless.
        self_pairs: whether j = i counts in both sums, as in the authors' code. Without, an image that shares no label
            with another of the batch is left out of the mean.
        balanced: whether each class has the same weight, in the mean and in both sums, however many of its images the
            batch holds: image j counts 1 / n of its class, as class averages do in a balanced contrastive loss (Zhu,
            Wang, Chen, Chen & Jiang, CVPR 2022). With classes of one size nothing changes.

    Returns:
        Scalar float64 >= 0; 0 when each image's weight lies wholly in its own class.

    Raises:
        InputError: `balanced`, with sets of labels.
    """
    unit = F.normalize(features.double(), dim=1)
    scaled, alike = unit @ unit.T / temperature, _alike(labels)
    weights = _shares(labels) if balanced else scaled.new_full((len(labels),), 1 / len(labels))
    if balanced:
        scaled = scaled + weights.log()
    if not self_pairs:
        alone = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        paired = alike.masked_fill(alone, 0).any(1)
        scaled = scaled.masked_fill(alone & paired[:, None], -torch.inf)
        weights = torch.where(paired, weights, 0.0)
        weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return weights @ _share_of_labels(scaled, alike)


def _share_of_labels(scaled: Tensor, alike: Tensor) -> Tensor:
    """Minus the log of the part of each row's weights, exp(scaled), that `alike`, (B, B) in [0, 1], keeps: (B,)."""
    return scaled.logsumexp(1) - (scaled + alike.log()).logsumexp(1)


def agreement_term(features: Tensor, clean: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Hold perturbed features to the clean ones of their class, by angle: what MI-UE's similarity does not ask for.

        mean_i -log( sum_{j: y_j = y_i} exp(cos(z'_i, z_j) / t) / sum_j exp(cos(z'_i, z_j) / t) )

    A part of no published method; a loss that has it as a penalty lets the class of perturbed and clean features agree.

    Args:
        features: (B, d) float, z', of the perturbed images.
        clean: (B, d) float, z, of the same images without their perturbation.
        labels: (B,) int64.
        temperature: t > 0, dimensionless.

    Returns:
        Scalar float64 >= 0.
    """
    scaled = F.normalize(features.double(), dim=1) @ F.normalize(clean.double(), dim=1).T / temperature
    return _share_of_labels(scaled, _alike(labels)).mean()


def distance_term(features: Tensor, labels: Tensor, balanced: bool = False) -> Tensor:
    """Pull each class together by Euclidean distance.

        mean_i log(1 + sum_{j: y_j = y_i} |z_i - z_j|_2 / d)

    Args:
        features: (B, d) float.
        labels: (B,) int64, or (B, labels) bool.
        balanced: whether each class has the same weight, and its sum is as large as if the batch held as many images
            of each class.

    Returns:
        Scalar float64 >= 0; 0 when each class is one point. Value and gradient are right to 1e-3 down to a spread
        within the classes of 1e-6 of the features' size; coincident features pull on each other with no force.

    Raises:
        InputError: `balanced`, with sets of labels.
    """
    alike, z, count = _alike(labels), features.double(), len(labels)
    # Seen from the first of their class, rows are about as small as their distances, so that the Gram matrix keeps the
    # digits of these. Fewer are kept where that first row is an outlier: one as far off as the features are large has
    # a gradient good to 1e-4 at a spread of 1e-6. Only differences within a class matter, so no gradient passes through
    # that first row. Sets share their labels with many others, and are all seen from the first row of the batch.
    first = alike.argmax(1) if labels.ndim == 1 else torch.zeros(count, dtype=torch.long, device=z.device)
    z = z - z[first].detach()
    squared_norm = z.square().sum(1)
    squared = squared_norm[:, None] + squared_norm[None, :] - 2 * z @ z.T
    # The square root has no finite slope at zero, so coincident pairs (every i with itself) take no part in it.
    pairs = (alike > 0) & (squared > 0)
    pairs.fill_diagonal_(False)
    distance = torch.where(pairs, squared, 1.0).sqrt() * pairs * alike
    weights = _shares(labels) if balanced else z.new_full((count,), 1 / count)
    within = distance @ (count * weights) if balanced else distance.sum(1)
    return weights @ torch.log1p(within / features.shape[1])


def information_term(features: Tensor, clean: Tensor, directions: Tensor) -> Tensor:
    """The information that perturbed features share with clean ones, as far as slices show it: what MI-UE stands for.

    The mean over pairs of directions of a kernel estimate of I(clean . phi; features . theta), each image left out of
    its own density, as `miue.mi.mi_kde` makes it of values (its `scale="values"`, `evaluation="exact"`); bandwidth
    B^(-1/6) standard deviations. A part of no published method.

    Args:
        features: (B, d) float, of the perturbed images.
        clean: (B, d) float, of the same images without their perturbation.
        directions: (2, S, d) float, theta and phi.

    Returns:
        Scalar float64, nats; it may lie below 0, as an estimate can.
    """
    count = len(features)
    x, y = (
        _standardised(z.double() @ along.double().T) for z, along in zip((features, clean), directions, strict=True)
    )
    r = (x * y).mean(0).clamp(-LARGEST_CORRELATION, LARGEST_CORRELATION)
    dx, dy = ((v[:, None] - v) * count ** (1 / 6) for v in (x, y))  # (B, B, S), in bandwidths
    joint = (dx.square() - 2 * r * dx * dy + dy.square()) / (1 - r.square())
    own = torch.eye(count, dtype=torch.bool, device=x.device)[:, :, None]
    joint, alone_x, alone_y = (
        (-0.5 * squared).masked_fill(own, -torch.inf).logsumexp(1) for squared in (joint, dx.square(), dy.square())
    )
    return (joint - alone_x - alone_y).mean() + math.log(count - 1) - 0.5 * torch.log1p(-r.square()).mean()


def _standardised(values: Tensor) -> Tensor:
    """Columns (B, S) with mean 0 and standard deviation 1; those that are constant become 0."""
    centred = values - values.mean(0)
    return centred / centred.square().mean(0).clamp(min=1e-12).sqrt()


def mi_ue_loss(
    features: Tensor, labels: Tensor, temperature: float = 0.1, zeta: float = 0.1, balanced: bool = False
) -> Tensor:
    """The MI-UE objective: `similarity_term + zeta * distance_term`; perturbations descend on it.

    Args:
        features: (B, d) float.
        labels: (B,) int64, or (B, labels) bool.
        temperature: of the similarity term.
        zeta: weight of the distance term, >= 0; the paper uses 0.1 and reports that 10 destroys the effect.
        balanced: whether each class has the same weight, as in `similarity_term`.

    Returns:
        Scalar float64 >= 0.

    Raises:
        InputError: `balanced`, with sets of labels.

    Example:
        >>> import torch
        >>> from miue.losses import mi_ue_loss
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> apart = torch.eye(2)[labels]  # each class one point, at right angles to the other
        >>> together = torch.ones(4, 2)
        >>> round(float(mi_ue_loss(apart, labels)), 3), round(float(mi_ue_loss(together, labels)), 3)
        (0.0, 0.693)
    """
    loss = similarity_term(features, labels, temperature, balanced=balanced)
    return loss + zeta * distance_term(features, labels, balanced) if zeta else loss
