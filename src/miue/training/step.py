"""One step of training on one batch, and the schedule of its learning rate."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue.models import Network, forward
from miue.precision import LOSS_SCALE
from miue.ranks import Ranks
from miue.replay import Replay
from miue.training.recipes import Recipe


def loss_of(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """What a network is trained by, of logits and targets: cross-entropy, unless its head brings a loss of its own."""
    own: Callable[[Tensor, Tensor], Tensor] = getattr(getattr(model, "head", None), "loss", F.cross_entropy)
    return own


class Trainer:
    """One step of SGD on one batch, which a GPU replays: forward, loss, backward and update.

    Args:
        model: the network, which is changed.
        recipe: its SGD, and what gradients are clipped to.
        number: the precision, resolved.
        device: where the network lies. On a GPU the learning rate is a tensor, which schedules fill in place.
        ranks: the processes that average their gradients.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, number: str, device: torch.device, ranks: Ranks) -> None:
        self.model, self.recipe, self.number = model, recipe, number
        self._loss = loss_of(model)
        self._averaging = ranks.averaging(model)
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            torch.tensor(recipe.lr, device=device) if on_gpu else recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True if on_gpu else None,
        )
        self.scaler = torch.amp.GradScaler(device.type, LOSS_SCALE, enabled=number == "float16")
        if on_gpu:
            self.scaler.scale(torch.zeros((), device=device))  # makes its own tensors, so that `_changes` tells them
        # What comes from elsewhere may draw random numbers, or look at what it computes.
        self._step = Replay(self._update, self._changes) if type(self._averaging) is Network else self._update

    def __call__(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on images (B, C, H, W), float in [0, 1], and targets (B,) or (B, classes): loss and logits, detached.

        Both are overwritten by the next call.
        """
        if not self.model.training:
            self.model.train()
        loss, logits = self._step(x, targets)
        return loss, logits

    def _update(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, _ = forward(self._averaging, x, self.number)
        loss = self._loss(logits, targets)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach(), logits.detach()

    def _changes(self) -> list[Tensor]:
        momentum = [state["momentum_buffer"] for state in self.optimizer.state.values()]
        scale = [self.scaler._scale, self.scaler._growth_tracker] if self.scaler.is_enabled() else []
        return [*self.model.parameters(), *self.model.buffers(), *scale, *momentum]


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, batches: int) -> tuple[Any, bool]:
    """Return the schedule and whether it steps by batch (else by epoch)."""
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == "one_cycle":
        total = recipe.epochs * batches
        return schedules.OneCycleLR(optimizer, recipe.lr, total_steps=total, cycle_momentum=False), True
    if recipe.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, recipe.epochs), False
    if recipe.schedule == "steps":
        at = [round(share * recipe.epochs) for share in (0.4, 0.8)]
        return schedules.MultiStepLR(optimizer, at, gamma=0.1), False
    return schedules.ConstantLR(optimizer, factor=1.0), False
