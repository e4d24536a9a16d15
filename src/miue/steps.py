"""The two expensive steps, each done once: a perturbation and a victim, cached by all that determines them."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from miue import poisons, store, train
from miue.defenses import Defense
from miue.errors import InputError
from miue.files import atomic
from miue.images import Images
from miue.models import Network, build, precision
from miue.pgd import Budget, parse_epsilon
from miue.poisons import METHODS, Poison
from miue.progress import track
from miue.specs import parse


@dataclass(frozen=True)
class Victim:
    """A trained network, its learning curve, and the record of how it came to be."""

    model: Network
    history: list[train.Epoch]
    record: dict[str, Any]

    @property
    def last(self) -> float:
        """Test accuracy after the last epoch, in [0, 1]."""
        return self._curve()[-1]

    @property
    def best(self) -> float:
        """The highest test accuracy of any epoch, in [0, 1]."""
        return max(self._curve())

    def _curve(self) -> list[float]:
        return [e.test_accuracy for e in self.history if e.test_accuracy is not None]

    def save(self, path: str | Path) -> None:
        """Write weights and record to a safetensors file, atomically."""
        header = {
            "spec": self.model.spec,
            "history": [asdict(e) for e in self.history],
            "record": self.record,
        }
        state = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        with atomic(path) as part:
            save_file(state, part, {"miue": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "Victim":
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or it is damaged.
        """
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["miue"])
                state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise InputError(f"victim: {path} is missing or damaged ({error})") from None
        spec = header["spec"]
        model = build(spec.pop("name"), spec.pop("n_classes"), **spec)
        model.load_state_dict(state)
        return cls(model.eval(), [train.Epoch(**row) for row in header["history"]], header["record"])


def _environment(device: torch.device) -> dict[str, str]:
    return {"torch": torch.__version__, "device": store.device_name(device)}


def perturbation(
    method: str,
    images: Images,
    *,
    model: str = "small_resnet",
    epsilon: float | str = 8 / 255,
    seed: int = 0,
    preset: str = "laptop",
    **changes: Any,
) -> Poison:
    """`miue.poisons.generate`, cached; arguments and errors are the same."""
    chosen = poisons.options(method, preset, **changes)
    name, _ = parse(method)
    device = train.default_device()
    return store.cached(
        Poison,
        lambda: poisons.generate(
            method, images, model=model, epsilon=epsilon, seed=seed, device=device, preset=preset, **changes
        ),
        method=name,
        options=asdict(chosen),
        model=model,
        levels=Budget(parse_epsilon(epsilon)).levels,
        seed=seed,
        images=images.content_hash,
        ids=store.key(ids=images.ids.tolist()),
        code=[store.code_hash(METHODS[name].make.__module__), store.code_hash("miue.poisons.base")],
        **_environment(device),
    )


def victim(
    images: Images,
    test: Images,
    *,
    model: str = "small_resnet",
    recipe: str = "laptop",
    seed: int = 0,
    defense: Defense | None = None,
    start: Victim | None = None,
    **changes: Any,
) -> Victim:
    """Train a network on (perturbed) `images`, measuring it on the clean `test` after every epoch; cached.

    Args:
        images: training pictures.
        test: clean test pictures.
        model: one of `miue.models.MODELS`, with options if wanted: "resnet18:width=0.25".
        recipe: one of `miue.train.RECIPES`.
        seed: of the weights, the order and the augmentation.
        defense: what is done to the training pictures, made by `miue.defenses.build`.
        start: a victim of the same model to start from, with all its weights, or those of its features where the
            classes are others.
        **changes: fields of the recipe to override.

    Raises:
        InputError: unknown model, recipe or field; `start` is another model.
    """
    chosen = train.recipe(recipe, **changes)
    device = train.default_device()
    if start is not None and start.model.spec["name"] != model:
        raise InputError(f"start: a {start.model.spec['name']}; it must be a {model}, as the victim is")

    def make() -> Victim:
        began = time.perf_counter()
        channels, size, _ = images.shape
        network = build(model, len(images.classes), channels=channels, size=size, seed=seed)
        if start is not None:
            network.load_state_dict(_weights(start, network), strict=False)
        trained = train.epochs(network, images, chosen, seed=seed, test=test, device=device, defense=defense)
        history = list(track(trained, f"victim {model}, epochs", chosen.epochs))
        record = {
            "model": model,
            "recipe": recipe,
            "options": asdict(chosen),
            "precision": precision(chosen.precision, device),
            "seed": seed,
            "defense": _described(defense),
            "start": None if start is None else {k: start.record[k] for k in ("recipe", "seed", "train")},
            "train": images.record(),
            "test": test.record(),
            "seconds": time.perf_counter() - began,
            **store.provenance(device),
        }
        return Victim(network.cpu().eval(), history, record)

    return store.cached(
        Victim,
        make,
        model=model,
        options=asdict(chosen),
        seed=seed,
        images=images.content_hash,
        test=test.content_hash,
        defense=_described(defense),
        start=None if start is None else _digest(start),
        code=[store.code_hash(module) for module in ("miue.train", *_modules(defense))],
        **_environment(device),
    )


def _described(defense: Defense | None) -> dict[str, Any] | None:
    return None if defense is None else defense.record()


def _modules(defense: Defense | None) -> tuple[str, ...]:
    return () if defense is None else (type(defense).__module__,)


def _weights(start: Victim, network: Network) -> dict[str, torch.Tensor]:
    """What of the weights of `start` fits `network`: all, or all but the head."""
    same = start.model.spec["n_classes"] == network.spec["n_classes"]
    return {name: w for name, w in start.model.state_dict().items() if same or not name.startswith("head.")}


def _digest(victim: Victim) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in victim.model.state_dict().items():
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
