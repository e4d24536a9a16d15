"""The MI-UE objective, as pure functions of a mini-batch of features and its labels.

Both sums of the loss include the pair (i, i), as in the authors' code; the value therefore depends on who shares
the batch, and pgd passes use class-balanced batches where they can. Both terms are computed in float64, whatever the
features are: towards the end of a run the features of a class nearly coincide, and their differences are then below
the last digit of a float32 product. Reference: Zhu, Miao, Dong & Gao, "Why Do
Unlearnable Examples Work", ICLR 2026 (arXiv 2603.03725).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["distance_term", "mi_ue_loss", "similarity_term"]


def _same_class(labels: Tensor) -> Tensor:
    return labels[:, None] == labels[None, :]


def similarity_term(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Pull each class together and push classes apart, by angle.

        mean_i -log( sum_{j: y_j = y_i} exp(cos(z_i, z_j) / t) / sum_j exp(cos(z_i, z_j) / t) )

    Args:
        features: (B, d) float, one row per image.
        labels: (B,) int64.
        temperature: t > 0, dimensionless.

    Returns:
        Scalar float64 >= 0; 0 when each image's weight lies wholly in its own class.
    """
    unit = F.normalize(features.double(), dim=1)
    scaled = unit @ unit.T / temperature
    within = scaled.masked_fill(~_same_class(labels), -torch.inf)
    return (scaled.logsumexp(1) - within.logsumexp(1)).mean()


def distance_term(features: Tensor, labels: Tensor) -> Tensor:
    """Pull each class together by Euclidean distance.

        mean_i log(1 + sum_{j: y_j = y_i} |z_i - z_j|_2 / d)

    Args:
        features: (B, d) float.
        labels: (B,) int64.

    Returns:
        Scalar float64 >= 0; 0 when each class is one point. Value and gradient are right to 1e-3 down to a spread
        within the classes of 1e-6 of the features' size; coincident features pull on each other with no force.
    """
    same, z = _same_class(labels), features.double()
    # Seen from the first of their class, rows are about as small as their distances, so that the Gram matrix keeps the
    # digits of these. Fewer are kept where that first row is an outlier: one as far off as the features are large has
    # a gradient good to 1e-4 at a spread of 1e-6. Only differences within a class matter, so no gradient passes through
    # that first row.
    z = z - z[same.byte().argmax(1)].detach()
    squared_norm = z.square().sum(1)
    squared = squared_norm[:, None] + squared_norm[None, :] - 2 * z @ z.T
    # The square root has no finite slope at zero, so coincident pairs (every i with itself) take no part in it.
    pairs = same & (squared > 0)
    pairs.fill_diagonal_(False)
    distance = torch.where(pairs, squared, 1.0).sqrt() * pairs
    return torch.log1p(distance.sum(1) / features.shape[1]).mean()


def mi_ue_loss(features: Tensor, labels: Tensor, temperature: float = 0.1, zeta: float = 0.1) -> Tensor:
    """The MI-UE objective: `similarity_term + zeta * distance_term`; perturbations descend on it.

    Args:
        features: (B, d) float.
        labels: (B,) int64.
        temperature: of the similarity term.
        zeta: weight of the distance term, >= 0; the paper uses 0.1 and reports that 10 destroys the effect.

    Returns:
        Scalar float64 >= 0.

    Example:
        >>> import torch
        >>> from miue.losses import mi_ue_loss
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> apart = torch.eye(2)[labels]  # each class one point, at right angles to the other
        >>> together = torch.ones(4, 2)
        >>> round(float(mi_ue_loss(apart, labels)), 3), round(float(mi_ue_loss(together, labels)), 3)
        (0.0, 0.693)
    """
    loss = similarity_term(features, labels, temperature)
    return loss + zeta * distance_term(features, labels) if zeta else loss
