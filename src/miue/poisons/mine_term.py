"""The MINE term: an estimate of mutual information that delta lowers while a critic raises it.

Zhu, Miao, Dong & Gao, ICLR 2026 (arXiv 2603.03725), add it to EM and to TAP and report a ResNet-18 victim on CIFAR-10
of 15.62 % instead of 24.17 %, and of 10.01 % instead of 11.21 %. In every step of delta a small critic first learns, on
the batch's pairs of clean and perturbed features against all its mixed pairs, to raise the Donsker-Varadhan estimate of
I(g(x); g(x + delta)) (Belghazi et al., "Mutual Information Neural Estimation", ICML 2018); delta then lowers the
loss of its method plus `weight` times that estimate.

The weight, the critic and its schedule in the paper are not known to us; those here are ours. Where a
method augments x + delta, its features are still paired with those of x as it is. The estimate serves as a
direction and not as a measurement: its critic is judged on the pairs that it learns from. `miue.mi` measures.
"""

from typing import Any

import torch
from torch import Tensor

from miue.data.images import Images
from miue.mi.critic import Critic, bound, loss
from miue.models import Network
from miue.models.frozen import Frozen
from miue.poisons.passes import Loss, Objective, on_outputs
from miue.training import loop

HIDDEN, LAYERS = 64, 2  # of the critic
LEARNING_RATE, WEIGHT_DECAY = 0.005, 0.1  # of AdamW


class Mine:
    """The term, and the critic that learns alongside delta.

    Args:
        weight: of the estimate (nats) in the loss; 0 leaves the term out.
        network: the surrogate; its features, g, have a width and a device.
        generator: of the critic's initial weights, on the CPU.
    """

    def __init__(self, weight: float, network: Network, generator: torch.Generator) -> None:
        width, device = network.head.in_features, network.head.weight.device
        self.weight = weight
        self.critic = Critic(1, width, width, HIDDEN, LAYERS, generator, device)
        self._optimiser = torch.optim.AdamW(self.critic.parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self._log_average: Tensor | None = None
        self._value = torch.zeros(())

    def on_outputs(self, frozen: Frozen, objective: Objective) -> Loss:
        """Do what `passes.on_outputs` does, with the term added; `look` and `begin` have to be called before."""

        def regularised(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
            return objective(logits, features, labels) + self.weight * self.estimate(features)

        return on_outputs(frozen, regularised if self.weight else objective)

    def look(self, network: Network, images: Images) -> None:
        """Take the features of the clean images, under the network as it stands, for the passes to come."""
        if not self.weight:
            return
        features = loop.features(network, images)
        # One scale for all units: a unit that is silent on clean images has none of its own.
        self._centre, self._scale = features.mean(0), features.std().clamp(min=1e-6)
        self._clean = (features - self._centre) / self._scale

    def begin(self, rows: Tensor) -> None:
        """Say which images, (B,) int64, the coming batches of features belong to."""
        if self.weight:
            self._rows = rows.to(self._clean.device)

    def estimate(self, features: Tensor) -> Tensor:
        """Let the critic learn one step, then estimate I(g(x); g(x + delta)) in nats.

        Args:
            features: (B, d), g(x + delta) of the rows last told to `begin`.

        Returns:
            Scalar, differentiable in `features`; 0 for a batch of one image, which has no mixed pairs.
        """
        count = len(features)
        if count < 2:
            return features.new_zeros(())
        clean = self._clean[self._rows][None]
        perturbed = ((features - self._centre) / self._scale)[None]
        scores = self.critic.scores(clean, perturbed.detach(), count)
        lost, self._log_average = loss("mine", scores, self._log_average)
        self._optimiser.zero_grad()
        lost.sum().backward()
        self._optimiser.step()
        value = bound("mine", self.critic.scores(clean, perturbed, count))[0]
        self._value = value.detach()
        return value

    def state_dict(self) -> dict[str, Any]:
        """What the critic has learned, for a checkpoint."""
        return {
            "critic": [parameter.detach() for parameter in self.critic.parameters],
            "optimiser": self._optimiser.state_dict(),
            "log_average": self._log_average,
            "value": self._value,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` told."""
        with torch.no_grad():
            for parameter, value in zip(self.critic.parameters, state["critic"], strict=True):
                parameter.copy_(value)
        self._optimiser.load_state_dict(state["optimiser"])
        self._log_average, self._value = state["log_average"], state["value"]

    def notes(self) -> dict[str, float]:
        """The last estimate (nats), for the notes of a method; nothing where the term is left out."""
        return {"mine": float(self._value)} if self.weight else {}
