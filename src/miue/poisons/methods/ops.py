"""OPS: one-pixel shortcuts, without a surrogate and without a budget.

Wu, Chen, Xie & Huang, "One-Pixel Shortcut: On the Learning Preference of Deep Neural Networks", ICLR 2023: in all
images of a class the same pixel gets the same extreme colour. Of all pixels and colours the class takes the pair
that changes its images most and most evenly: the mean of the change over its standard deviation, both over the
images of the class and the channels, as in the authors' code.

It costs two passes over the pixels and none through a network, so the presets are equal, and no chance is involved:
the seed is ignored. Published victims (ResNet-18) have 15 to 37 % on CIFAR-10. The one pixel may change by up to 255
levels: OPS keeps no L-infinity budget.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 54, a quarter-width VGG-11 19, a two-layer perceptron
44 and a linear network 34 %, where clean training has 59, 61, 45 and 34 %.

Ours rather than published: a deviation below one level counts as one, and two classes never share pixel and colour.
"""

from itertools import product

import torch
from torch import Tensor

from miue.data.images import Images, pieces
from miue.poisons.base import Made, Options, Task, blank

PRESETS = {name: Options() for name in ("quick", "laptop", "paper")}


def ops(task: Task) -> Made:
    """Set one pixel of every image, by class; the notes hold row, column and colour (levels) of each class."""
    images = task.images
    colours = torch.tensor(list(product((0, 255), repeat=images.shape[0])))
    width = images.shape[2]
    delta = blank(images, torch.int16)
    free = torch.ones(len(colours), images.shape[1] * width, dtype=torch.bool)
    chosen = []
    for label in range(len(images.classes)):
        members = (images.y.cpu() == label).nonzero()[:, 0]
        if not len(members):
            continue
        score = evenness(images, members, colours)
        # Two classes with the same pixel and colour would have no shortcut: what is taken is out of the question.
        score[~free] = -1
        colour, place = divmod(int(score.argmax()), score.shape[1])
        free[colour, place] = False
        row, column = divmod(place, width)
        for index in pieces(members, images.shape):
            x, _ = images.batch(index)
            target = colours[colour].to(x.device, torch.int16)
            delta[index.to(delta.device), :, row, column] = (target - x[:, :, row, column]).to(delta)
        chosen.append({"class": label, "row": row, "column": column, "colour": colours[colour].tolist()})
    return Made(delta, {"pixels": chosen})


def evenness(images: Images, members: Tensor, colours: Tensor) -> Tensor:
    """Score all colours and pixels for one class: mean over standard deviation of the change.

    Both are over all images and channels together: a colour scores by being as far from one channel as from another.

    Args:
        images: the images.
        members: (M,) indices of the images of the class, M >= 1.
        colours: (K, C) levels.

    Returns:
        (K, H * W) float64 on the CPU, 0 or above.
    """
    total, squares = torch.zeros(2, len(colours), images.shape[1] * images.shape[2], dtype=torch.float64)
    for index in pieces(members, images.shape):
        x = images.batch(index)[0].flatten(2).to(torch.int16)
        for number, colour in enumerate(colours.to(x.device, torch.int16)):
            change = (x - colour[:, None]).abs().double()
            total[number] += change.sum((0, 1)).cpu()
            squares[number] += change.square().sum((0, 1)).cpu()
    count = len(members) * images.shape[0]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean / deviation.clamp(min=1)  # a level: where nothing varies, the largest change wins
