"""What neural estimates of mutual information maximise, and the networks that they train.

A *critic* f(x, y) tells true pairs from mixed ones. Samples are cut into groups of g, and f is evaluated on all g^2
pairs of a group: the diagonal of such a *score matrix* holds draws from the joint distribution, the rest draws from
the product of the marginals. Every objective is a function of score matrices, (rows, groups, g, g).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import relu, silu, softplus

OBJECTIVES = ("mine", "nwj", "infonce", "smile")


def bound(objective: str, scores: Tensor, clip: float = 5.0) -> Tensor:
    """Return the value (rows,) in nats that `objective` gives to score matrices (rows, groups, g, g).

    With E_p the mean over the diagonals and E_q the mean over all that lies off them:

        mine     E_p f - log E_q e^f                             (Donsker and Varadhan; Belghazi et al. 2018)
        nwj      1 + E_p f - E_q e^f                             (Nguyen, Wainwright and Jordan 2010, for f + 1)
        infonce  E_p [f(x_i, y_i) - log 1/g sum_j e^f(x_i, y_j)] (van den Oord, Li and Vinyals 2018; at most log g)
        smile    E_p f - log E_q clip(e^f, e^-clip, e^clip)      (Song and Ermon 2020; not a bound)

    In expectation, for a fixed critic, the first three are at most I(X;Y), MINE up to the bias of its logarithm. All
    are largest (SMILE: right) for the log density ratio f = log p(x, y) / p(x) p(y), up to a constant for MINE and a
    function of x for InfoNCE.
    """
    return bound_and_shares(objective, scores, clip)[0]


def bound_and_shares(objective: str, scores: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return `bound` and, up to a constant, what each sample contributes to it as x and as y: (rows, groups, g).

    The shares are the derivative of the value by the weight of a sample. Their standard deviation over the square root
    of their number is the standard error of the value, given the critic (the delta method).
    """
    g = scores.shape[-1]
    joint = scores.diagonal(dim1=2, dim2=3)
    if objective == "infonce":
        terms = joint - scores.logsumexp(dim=3) + math.log(g)
        return terms.mean(dim=(1, 2)), terms - scores.softmax(dim=3).sum(dim=2)
    kept = scores.clamp(-clip, clip) if objective == "smile" else scores
    ratio = _off_diagonal(kept)
    log_partition = _log_mean(ratio)
    if objective == "nwj":
        ratio = ratio.exp()  # E_q e^f should be 1
        value = 1 + joint.mean(dim=(1, 2)) - log_partition.exp()
    else:
        ratio = (ratio - log_partition[:, None, None, None]).exp()
        value = joint.mean(dim=(1, 2)) - log_partition
    return value, joint - (ratio.sum(dim=3) + ratio.sum(dim=2)) / (g - 1)


def loss(
    objective: str, scores: Tensor, log_average: Tensor | None = None, rate: float = 0.1
) -> tuple[Tensor, Tensor | None]:
    """Return what training lowers, (rows,), and for MINE the log of the moving average that the next step needs.

    MINE divides the gradient of a batch's partition term E_q e^f by a moving average of such terms (Belghazi et al.
    2018, section 3.2), in which a new batch has the weight `rate`. The average starts *at the first batch*, so that
    the first gradient is the plain one of `bound`; started at any constant it would be off by any factor. SMILE is
    trained, as by its authors, on the Jensen-Shannon objective E_p softplus(-f) + E_q softplus(f), which is least for
    the same critic. The others are trained on their values.
    """
    if objective in ("nwj", "infonce"):
        return -bound(objective, scores), None
    joint, mixed = scores.diagonal(dim1=2, dim2=3), _off_diagonal(scores)
    if objective == "smile":
        g = scores.shape[-1]
        return softplus(-joint).mean(dim=(1, 2)) + softplus(mixed).mean(dim=(1, 2, 3)) * g / (g - 1), None
    log_partition = _log_mean(mixed)
    now = log_partition.detach()
    log_average = now if log_average is None else torch.logaddexp(log_average + math.log1p(-rate), now + math.log(rate))
    return (log_partition - log_average).exp() - joint.mean(dim=(1, 2)), log_average


def _off_diagonal(scores: Tensor) -> Tensor:
    """Return the scores with -inf on the diagonals, where e^f is then 0."""
    return scores.masked_fill(torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device), -torch.inf)


def _log_mean(mixed: Tensor) -> Tensor:
    """Log of the mean (rows,) of e^f over what lies off the diagonals of (rows, groups, g, g)."""
    _, groups, g, _ = mixed.shape
    return mixed.flatten(1).logsumexp(dim=1) - math.log(groups * g * (g - 1))


class Critic:
    """One independent perceptron f(x, y) for each row, all of them evaluated and trained at once.

    The first layer is linear in x and in y apart, so it runs once for a sample and not once for a pair. Smooth units
    (SiLU) follow it and kinked ones (ReLU) come after: the first suit smooth densities, the second those with edges.

    Args:
        rows: how many.
        d_x: width of x.
        d_y: width of y.
        hidden: units of a layer.
        layers: hidden layers, one or more.
        generator: of the initial weights. All rows share them, so that no row's result depends on its neighbours.
        device: where the network lies.

    Attributes:
        parameters: all that is trained; the first axis of each is the row.
    """

    def __init__(
        self, rows: int, d_x: int, d_y: int, hidden: int, layers: int, generator: torch.Generator, device: torch.device
    ):
        self.d_x = d_x
        self.layers: list[tuple[Tensor, Tensor]] = []
        widths = [d_x + d_y, *[hidden] * layers, 1]
        for fan_in, fan_out in pairwise(widths):
            weight = (2 * torch.rand(fan_in, fan_out, generator=generator) - 1) * math.sqrt(3 / fan_in)
            weight, bias = (v.to(device).repeat(rows, 1, 1) for v in (weight, torch.zeros(1, fan_out)))
            self.layers.append((weight.requires_grad_(), bias.requires_grad_()))
        self.parameters = [value for layer in self.layers for value in layer]

    def scores(self, x: Tensor, y: Tensor, group: int) -> Tensor:
        """Score all pairs within groups: x (rows, m, d_x), y (rows, m, d_y) -> (rows, m // group, group, group)."""
        left, right = self._first_layer(x, y, group)
        return self._pairs(left, right)

    @torch.no_grad()
    def scores_in_blocks(self, x: Tensor, y: Tensor, group: int, max_bytes: int) -> Tensor:
        """Return `scores` in float64, one block of pairs after another, each within `max_bytes`."""
        left, right = self._first_layer(x, y, group)
        rows, groups, _, hidden = left.shape
        block = max(1, max_bytes // (4 * 4 * rows * groups * group * hidden))
        return torch.cat([self._pairs(part, right).double() for part in left.split(block, dim=2)], dim=2)

    def _first_layer(self, x: Tensor, y: Tensor, group: int) -> tuple[Tensor, Tensor]:
        weight, bias = self.layers[0]
        left = torch.baddbmm(bias, x, weight[:, : self.d_x])
        right = torch.bmm(y, weight[:, self.d_x :])
        return left.unflatten(1, (-1, group)), right.unflatten(1, (-1, group))

    def _pairs(self, left: Tensor, right: Tensor) -> Tensor:
        rows, groups, m, hidden = left.shape
        state = silu(left[:, :, :, None] + right[:, :, None]).reshape(rows, -1, hidden)
        for weight, bias in self.layers[1:-1]:
            state = relu(torch.baddbmm(bias, state, weight))
        weight, bias = self.layers[-1]
        return torch.baddbmm(bias, state, weight).reshape(rows, groups, m, -1)
