"""What can be read off a perturbation without a victim: how visible it is, and how plainly it tells the class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.poisons.poison import Poison

PATCHES, STEPS, RATE = 128, 300, 0.01
"""Images in a batch of the patch reader, steps and learning rate (Adam) of its training."""


def visibility(clean: Images, published: Images) -> dict[str, float | None]:
    """Compare images with their perturbed copies, whose ids are the same and in the same order.

    Returns:
        `psnr`, peak signal-to-noise ratio in dB of the mean squared difference over all pixels, None where nothing
        differs; `ssim`, the mean structural similarity, at most 1 (Wang, Bovik, Sheikh & Simoncelli, IEEE Transactions
        on Image Processing, 2004), in windows of 11 pixels, or of what smaller images have.
    """
    from kornia.metrics import ssim  # seconds to import

    window = min(11, min(clean.shape[1:]) // 2 * 2 - 1)
    squared, similar = 0.0, 0.0
    for index in clean.chunks():
        one, other = (images.batch(index)[0].float() / 255 for images in (clean, published))
        squared += float((one - other).square().mean((1, 2, 3)).sum())
        similar += float(ssim(one, other, window).mean((1, 2, 3)).sum())
    psnr = 10 * math.log10(len(clean) / squared) if squared else None
    return {"psnr": psnr, "ssim": similar / len(clean)}


def class_share(poison: Poison, images: Images) -> float:
    """Share of the energy of delta, its squared norm over all images, that lies in the means of the classes, in [0, 1].

    The sum over classes of their number of images times the squared norm of their mean delta, over the sum of all
    squared norms: 1 where all images of a class share one delta; about the number of classes over that of images where
    deltas have nothing to do with the class.
    """
    rows = poison.rows(images)
    sums = torch.zeros(len(images.classes), *images.shape)
    total = 0.0
    for index in images.chunks():
        part = poison.delta[rows[index]].float()
        sums.index_add_(0, images.y[index].cpu(), part)
        total += float(part.square().sum())
    counts = images.y.cpu().bincount(minlength=len(images.classes)).clamp(min=1)
    return float((sums.square().sum((1, 2, 3)) / counts).sum()) / total if total else 0.0


def patch_reader(poison: Poison, images: Images) -> float:
    """Accuracy, in [0, 1], with which a linear function of 3 x 3 patches of delta tells the class of held-out images.

    Each patch names the classes' probabilities by a softmax of one linear function; an image has the class whose mean
    log-probability over its patches is the largest. What it reads is local and the same everywhere, as what the first
    layer of a network finds soonest. A fifth of the images, drawn by seed 0, is held out.

    Args:
        poison: whose delta is read.
        images: the images that it is for; their labels count, not their pixels.
    """
    generator = seeds.stream(0, "probe")
    order = torch.randperm(len(images), generator=generator)
    held_out, seen = order.tensor_split([round(0.2 * len(images))])
    rows, labels = poison.rows(images), images.y.cpu()
    scale = max(1.0, float(poison.record["levels"]))
    reader = nn.Conv2d(images.shape[0], len(images.classes), 3)
    for weights in reader.parameters():
        nn.init.zeros_(weights)
    optimiser = torch.optim.Adam(reader.parameters(), lr=RATE)

    def told(index: Tensor) -> Tensor:
        return F.log_softmax(reader(poison.delta[rows[index]].float() / scale), dim=1)

    for _ in range(STEPS):
        index = seen[torch.randint(len(seen), (PATCHES,), generator=generator)]
        logs = told(index)
        loss = F.nll_loss(logs, labels[index][:, None, None].expand(-1, *logs.shape[2:]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        hits = sum(int((told(index).mean((2, 3)).argmax(1) == labels[index]).sum()) for index in held_out.split(1000))
    return hits / len(held_out)
