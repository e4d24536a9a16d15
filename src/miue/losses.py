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

__all__ = ["agreement_term", "distance_term", "mi_ue_loss", "similarity_term"]


def _same_class(labels: Tensor) -> Tensor:
    return labels[:, None] == labels[None, :]


def similarity_term(features: Tensor, labels: Tensor, temperature: float = 0.1, self_pairs: bool = True) -> Tensor:
    """Pull each class together and push classes apart, by angle.

        mean_i -log( sum_{j: y_j = y_i} exp(cos(z_i, z_j) / t) / sum_j exp(cos(z_i, z_j) / t) )

    Args:
        features: (B, d) float, one row per image.
        labels: (B,) int64.
        temperature: t > 0, dimensionless.
        self_pairs: whether j = i counts in both sums, as in the authors' code. Without, an image that is alone of its
            class in the batch is left out of the mean.

    Returns:
        Scalar float64 >= 0; 0 when each image's weight lies wholly in its own class.
    """
    unit = F.normalize(features.double(), dim=1)
    scaled, same = unit @ unit.T / temperature, _same_class(labels)
    if self_pairs:
        return _share_of_class(scaled, same).mean()
    alone = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    paired = (same & ~alone).any(1)
    lost = _share_of_class(scaled.masked_fill(alone, -torch.inf), same & (~alone | ~paired[:, None]))
    return torch.where(paired, lost, 0.0).sum() / paired.sum().clamp(min=1)


def _share_of_class(scaled: Tensor, same: Tensor) -> Tensor:
    """Minus the log of the part of each row's weights, exp(scaled), that lies where `same` says: (B,)."""
    return scaled.logsumexp(1) - scaled.masked_fill(~same, -torch.inf).logsumexp(1)


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
    return _share_of_class(scaled, _same_class(labels)).mean()


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
