"""The training of critics, and what is measured with them: the work behind `mi_neural` and `max_sliced_mi`."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.errors import Count, InputError, NotNegative, Options, Positive, Range, Width
from miue.mi.critic import OBJECTIVES, Critic, bound, bound_and_shares, loss

R = TypeVar("R")
_Part = Annotated[float, Range(0, 1, above=True, below=True)]
N_MIN = 100  # the stopping part is a tenth of them, and fewer than ten samples say nothing


@dataclass(frozen=True, eq=False)
class Curves:
    """How a training went.

    Attributes:
        steps: (k,) steps done at each look.
        training: (rows, k) value of the objective in nats on the batch of that step, before anything is learnt from it.
        held_out: (rows, k) the same on the stopping part.
        best_step: (rows,) the step whose critic was kept.
    """

    steps: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    best_step: np.ndarray


@dataclass(frozen=True, eq=False)
class Fitted:
    """Values, and how they came about.

    Attributes:
        values: (rows,) float64 nats, from the reporting part.
        shares: (rows, m) float64, what each reporting sample contributes, up to a constant.
        curves: of the training.
        contrasts: g of the score matrices in reporting; InfoNCE cannot exceed its logarithm.
    """

    values: np.ndarray
    shares: np.ndarray = field(repr=False)
    curves: Curves = field(repr=False)
    contrasts: int

    @property
    def stderr(self) -> float:
        """Standard error of the mean value over the reporting samples, which all rows share, given the critics."""
        mean = self.shares.mean(axis=0)
        return float(mean.std(ddof=1) / math.sqrt(len(mean)))


@dataclass(frozen=True)
class Neural(Options):
    """The settings of a neural estimate, and the estimate itself.

    The samples fall into three parts at random. The critic is trained on the first. The *stopping* part says after
    how many steps it was best: a critic goes on improving on its training samples long after it has begun to learn
    them by heart. The value comes from the *reporting* part, which neither trained the critic nor chose the step.
    Given the critic there is thus no selection bias: the value is, in expectation, the lower bound that the objective
    promises. Read off the training part it would be too high, and so, a little, would be the best of many looks at
    the stopping part.

    Attributes:
        objective: "mine", "nwj", "infonce" or "smile", see `miue.mi.critic.bound`.
        hidden: units of a hidden layer.
        layers: hidden layers.
        batch: samples of a training step; what exceeds a multiple of `group` is left out.
        group: samples whose pairs are all scored, in training and in stopping.
        contrasts: the same in reporting: InfoNCE cannot exceed log(contrasts), 6.2 nats for 512.
        steps: training steps; the learning rate falls to zero over them along half a cosine.
        learning_rate: of AdamW (Loshchilov and Hutter, 2019), at its top.
        weight_decay: of AdamW; little of it suffices against learning by heart.
        every: steps between two looks at the stopping part.
        rate: weight of a new batch in MINE's moving average.
        clip: SMILE's tau.
        train: share of the samples that trains.
        stop: share of the samples that stops; the remaining ones report.
    """

    objective: Annotated[str, OBJECTIVES] = "mine"
    hidden: Width = 48
    layers: Annotated[int, Range(1, 100)] = 2
    batch: Count = 256
    group: Annotated[int, Range(2)] = 16
    contrasts: Annotated[int, Range(2)] = 512
    steps: Count = 400
    learning_rate: Positive = 0.02
    weight_decay: NotNegative = 0.1
    every: Count = 25
    rate: _Part = 0.1
    clip: Positive = 5.0
    train: _Part = 0.7
    stop: _Part = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < self.group:
            raise InputError(f"batch: {self.batch}; it must be at least one group, {self.group}")
        if self.train + self.stop >= 1:
            raise InputError(f"train, stop: {self.train} and {self.stop}; they must leave a share for reporting")

    def fit(self, x: Tensor, y: Tensor, *, seed: int = 0, max_bytes: int = 2**28) -> Fitted:
        """Train one critic for each row, and measure.

        All rows share the split, the batches and the initial weights, drawn from `seed` alone. So neither the order
        of the rows nor how many there are changes a result, nor, on CUDA but for float32 rounding, how many of them
        are trained at a time.

        Args:
            x: (rows, n, d_x), columns of mean 0 and standard deviation 1. The work is done where it lies.
            y: (rows, n, d_y).
            seed: of all that is random.
            max_bytes: memory, on CUDA of all rows trained at a time; at least one is, and takes 10 MB by default.

        Raises:
            InputError: fewer than 100 samples.
            FloatingPointError: the training diverged.
        """
        d_x, d_y = x.shape[2], y.shape[2]
        generator = seeds.stream(seed, "critic")
        parts = self.split(x.shape[1], generator)
        drawn = generator.get_state()

        def train_and_report(rows: slice) -> Fitted:
            own = torch.Generator()
            own.set_state(drawn)
            rows_x, rows_y = x[rows].float(), y[rows].float()
            critic = Critic(len(rows_x), d_x, d_y, self.hidden, self.layers, own, x.device)
            return self.train_and_report(critic, rows_x, rows_y, parts, own, max_bytes)

        one_row = 4 * (6 * self.layers * self.batch * self.group * self.hidden + x.shape[1] * (d_x + d_y))
        return joined(over_rows(train_and_report, len(x), max(1, max_bytes // one_row), x.device))

    def split(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the int64 indices of the training, the stopping and the reporting part.

        Raises:
            InputError: fewer than 100 samples, or a part of fewer than two.
        """
        if n < N_MIN:
            raise InputError(f"x: {n} samples are too few; this estimator needs at least {N_MIN}")
        order = torch.randperm(n, generator=generator)
        first, second = round(self.train * n), round((self.train + self.stop) * n)
        parts = order[:first], order[first:second], order[second:]
        if min(len(part) for part in parts) < 2:
            sizes = ", ".join(str(len(part)) for part in parts)
            raise InputError(f"train, stop: {self.train} and {self.stop} part the samples into {sizes}; each needs 2")
        return parts

    def train_and_report(
        self,
        critic: Critic,
        x: Tensor,
        y: Tensor,
        parts: tuple[Tensor, Tensor, Tensor],
        generator: torch.Generator,
        max_bytes: int,
    ) -> Fitted:
        """Train `critic` on the first of the `parts` of the samples, stop it on the second, report from the third."""
        training, stopping, reporting = parts
        curves = self.train_critic(critic, x, y, training, stopping, generator)
        size, used = groups(len(reporting), self.contrasts)
        part_x, part_y = (v[:, reporting[:used].to(v.device)] for v in (x, y))
        scores = critic.scores_in_blocks(part_x, part_y, size, max_bytes)
        values, shares = bound_and_shares(self.objective, scores, self.clip)
        self._finite(values, int(curves.steps[-1]))
        return Fitted(values.cpu().numpy(), shares.flatten(1).cpu().numpy(), curves, size)

    def train_critic(
        self, critic: Critic, x: Tensor, y: Tensor, training: Tensor, stopping: Tensor, generator: torch.Generator
    ) -> Curves:
        """Train `critic` in place on the training part, and give each row back its best state on the stopping part.

        Args:
            critic: its parameters, one entry of the first axis for each row, are changed.
            x: (rows, n, d_x) float32, or (1, n, d_x) if the critic shares it among rows.
            y: (rows, n, d_y) alike.
            training: indices of samples to learn from.
            stopping: indices of samples that choose the step.
            generator: of the batches, one sequence for all rows.

        Raises:
            FloatingPointError: a value is no longer finite.
        """
        optimiser = torch.optim.AdamW(
            critic.parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        size, batch = groups(min(self.batch, len(training)), self.group)
        stop_size, stop_used = groups(len(stopping), self.group)
        stop_x, stop_y = (v[:, stopping[:stop_used].to(v.device)] for v in (x, y))
        kept = [value.detach().clone() for value in critic.parameters]
        best = torch.full((len(kept[0]),), -torch.inf, dtype=torch.float64, device=x.device)
        best_step = torch.zeros_like(best, dtype=torch.int64)
        steps, learnt, unseen = [], [], []
        queue, average = training[:0], None
        for step in range(1, self.steps + 1):
            if len(queue) < batch:
                queue = training[torch.randperm(len(training), generator=generator)]
            now, queue = queue[:batch].to(x.device), queue[batch:]
            scores = critic.scores(x[:, now], y[:, now], size)
            lost, average = loss(self.objective, scores, average, self.rate)
            optimiser.zero_grad()
            lost.sum().backward()
            optimiser.step()
            schedule.step()
            if step % self.every and step < self.steps:
                continue
            with torch.no_grad():
                held_out = critic.scores(stop_x, stop_y, stop_size).double()
                steps.append(step)
                learnt.append(self._finite(bound(self.objective, scores.double(), self.clip), step))
                unseen.append(self._finite(bound(self.objective, held_out, self.clip), step))
                # What SMILE is trained on has its optimum at the right critic; its value has not.
                quality = -loss("smile", held_out)[0] if self.objective == "smile" else unseen[-1]
                better = quality > best
                best = torch.where(better, quality, best)
                best_step[better] = step
                for old, new in zip(kept, critic.parameters, strict=True):
                    old[better] = new[better]
        with torch.no_grad():
            for old, new in zip(kept, critic.parameters, strict=True):
                new.copy_(old)
        return Curves(
            steps=np.array(steps),
            training=torch.stack(learnt, dim=1).cpu().numpy(),
            held_out=torch.stack(unseen, dim=1).cpu().numpy(),
            best_step=best_step.cpu().numpy(),
        )

    def _finite(self, values: Tensor, step: int) -> Tensor:
        """Return `values` if all of them are finite."""
        if not values.isfinite().all():
            row = int((~values.isfinite()).nonzero()[0])
            raise FloatingPointError(
                f"{self.objective}: the training of row {row} diverged by step {step} (value {float(values[row])}); "
                f"try a learning_rate below {self.learning_rate:g}"
            )
        return values


def groups(samples: int, wanted: int) -> tuple[int, int]:
    """Return the size of equal groups of at most `wanted` samples, and how many samples they hold together."""
    count = math.ceil(samples / wanted)
    return samples // count, samples // count * count


def over_rows(work: Callable[[slice], R], rows: int, at_once: int, device: torch.device) -> list[R]:
    """Call `work` for slices of `rows`: on an accelerator `at_once` together, on the CPU singly, each in one thread.

    A processor gains nothing from training several rows together, loses much by sharing such small products out among
    its cores, and alone rows are the same to the last bit. So they run side by side, torch's number of threads of them.
    """
    if device.type != "cpu":
        return [work(slice(i, i + at_once)) for i in range(0, rows, at_once)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, (slice(i, i + 1) for i in range(rows))))
    finally:
        torch.set_num_threads(threads)


def joined(fitted: list[Fitted]) -> Fitted:
    """Put chunks of rows together again."""
    curves = [part.curves for part in fitted]
    return Fitted(
        values=np.concatenate([part.values for part in fitted]),
        shares=np.concatenate([part.shares for part in fitted]),
        curves=Curves(
            steps=curves[0].steps,
            training=np.concatenate([part.training for part in curves]),
            held_out=np.concatenate([part.held_out for part in curves]),
            best_step=np.concatenate([part.best_step for part in curves]),
        ),
        contrasts=fitted[0].contrasts,
    )
