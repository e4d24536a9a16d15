"""Heads for classes that have an inside: sets of labels, and captions.

A class is then named by its labels, joined by a plus ("3+7"), or by a text. Both heads are linear, and turn what the
linear layer gives into one score for each class, so that such a network perturbs, trains and is measured like any
other; each brings the loss that it is trained by.

Multi-label classification by one logistic regression for each label (binary relevance; Zhang & Zhou, IEEE TKDE 2014);
two towers compared by angle: CLIP (Radford et al., ICML 2021).
"""

import math
import re
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue.errors import InputError
from miue.models.network import Network, Size

__all__ = ["Captions", "LabelSets", "label_sets", "recall", "with_head"]

HIDDEN = 128  # units of the text tower
SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # of cosines, at the beginning and at most, as published


def label_sets(classes: Sequence[str]) -> tuple[list[str], Tensor]:
    """Read classes that are named by the labels in them, joined by a plus.

    Returns:
        The labels in sorted order, and which of them each class has, (classes, labels) bool.

    Example:
        >>> from miue.models.heads import label_sets
        >>> label_sets(["3", "3+7"])
        (['3', '7'], tensor([[ True, False],
                [ True,  True]]))
    """
    sets = [set(name.split("+")) for name in classes]
    labels = sorted(set().union(*sets))
    return labels, torch.tensor([[label in own for label in labels] for own in sets])


class LabelSets(nn.Linear):
    """One logit for each label; a class is the set of labels that an image has.

    The score of a class is the log of the probability that an image has its labels and no others, if each is there or
    not whatever the others are.

    Args:
        width: of the features.
        classes: their names, as `label_sets` reads them.
    """

    def __init__(self, width: int, classes: Sequence[str]) -> None:
        labels, sets = label_sets(classes)
        super().__init__(width, len(labels))
        self.register_buffer("sets", sets.float())

    def of_labels(self, features: Tensor) -> Tensor:
        """Map features (B, d) to one logit for each label, (B, labels)."""
        return super().forward(features)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, d) to log-probabilities of the classes, (B, classes)."""
        logits = self.of_labels(features)
        return logits @ self.get_buffer("sets").T - F.softplus(logits).sum(1, keepdim=True)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The sum over labels of binary cross-entropies, of scores (B, classes) and classes (B,).

        The sum, not the mean: it pulls on a network as the cross-entropy of single labels does, so that recipes fit.
        """
        return F.nll_loss(scores, targets)


class Captions(nn.Linear):
    """The image's side of two towers: features and captions meet in one space, and are compared by angle.

    The text's side is a bag of words and one hidden layer; both sides learn, and so does the scale of the cosines.

    Args:
        width: of the features.
        classes: the captions, one for each class.
        dimensions: of the common space.
    """

    def __init__(self, width: int, classes: Sequence[str], dimensions: int = 64) -> None:
        super().__init__(width, dimensions, bias=False)
        said = [re.findall(r"\w+", caption.lower()) for caption in classes]
        words = sorted({word for caption in said for word in caption})
        self.register_buffer(
            "bags", torch.tensor([[caption.count(word) for word in words] for caption in said]).float()
        )
        self.text = nn.Sequential(nn.Linear(len(words), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, dimensions))
        self.scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, d) to scaled cosines with all captions, (B, classes)."""
        images = F.normalize(super().forward(features), dim=1)
        texts = F.normalize(self.text(self.get_buffer("bags")), dim=1)
        return self.scale.exp().clamp(max=LARGEST_SCALE) * images @ texts.T

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """CLIP's loss, where several images of a batch may have the same caption.

        The mean of two cross-entropies: to find the caption of an image among all, and the images of a caption among
        those of the batch, each as likely.
        """
        own = F.one_hot(targets, scores.shape[1]).to(scores.dtype).T  # (classes, B)
        count = own.sum(1)
        found = (own * scores.T.log_softmax(1)).sum(1) / count.clamp(min=1)
        return (F.cross_entropy(scores, targets) - found.sum() / (count > 0).sum()) / 2


def with_head(
    model: str, head: Callable[[int, Sequence[str]], nn.Linear], classes: Sequence[str]
) -> Callable[[int, int, Size], Network]:
    """A network of this package with another head, to be handed over as a surrogate or a victim.

    Args:
        model: one of `miue.models.MODELS`.
        head: `LabelSets` or `Captions`, or a linear layer of your own that is made like them.
        classes: of the images.

    Returns:
        What `miue.models.build` takes for a network.

    Example:
        >>> import miue
        >>> from miue.models.heads import LabelSets, with_head
        >>> train, test = miue.load("digits_m:labels=pairs", n_train=60, n_test=20)
        >>> network = with_head("small_resnet", LabelSets, train.classes)
        >>> victim = miue.train_victim(train, test, model=network, recipe="quick:epochs=1")
        >>> 0 <= victim.accuracy <= 1
        True
    """
    from miue.models import build

    def headed(n_classes: int, channels: int, size: Size) -> Network:
        if n_classes != len(classes):
            raise InputError(f"classes: {len(classes)} are named for a head, and the images have {n_classes}")
        seed = int(torch.randint(2**31, ()))  # of the state that `build` has set
        body = build(model, n_classes, channels=channels, size=size, seed=seed)
        made = head(body.head.in_features, classes)
        return Network(body.body, made, {**body.spec, "head": type(made).__name__})

    return headed


def recall(scores: Tensor, targets: Tensor, k: int = 1) -> tuple[float, float]:
    """Retrieval by scores, in both directions.

    Args:
        scores: (N, captions), of images with captions.
        targets: (N,) int64, which caption is that of each image.
        k: how many are looked at, 1 or more.

    Returns:
        Shares in [0, 1]: of the images whose caption is among the k with the highest scores, and of the captions that
        have images of which one is among the k with the highest scores.
    """
    to_texts = (scores.topk(min(k, scores.shape[1]), dim=1).indices == targets[:, None]).any(1)
    best = targets[scores.topk(min(k, len(scores)), dim=0).indices]  # (k, captions)
    asked = targets.unique()
    to_images = (best == torch.arange(scores.shape[1], device=targets.device)).any(0)[asked]
    return float(to_texts.float().mean()), float(to_images.float().mean())
