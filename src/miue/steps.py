"""The two expensive steps, each done once: a perturbation and a victim, cached by all that determines them."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from miue import poisons, seeds, store, tensors, train
from miue.checkpoint import Checkpoint
from miue.defenses import Defense
from miue.errors import InputError
from miue.images import Images
from miue.models import Network, build, builder
from miue.pgd import Budget
from miue.poisons import METHODS, Poison
from miue.precision import precision
from miue.progress import track
from miue.specs import parse, parse_epsilon


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
        tensors.save(path, self.model.state_dict(), header)

    @classmethod
    def load(cls, path: str | Path) -> "Victim":
        """Read what `save` wrote; the network comes to the GPU where there is one.

        Raises:
            FileNotFoundError: there is no such file.
            tensors.Damaged: it is damaged.
        """
        state, header = tensors.load(path)
        spec = header["spec"]
        model = build(spec.pop("name"), spec.pop("n_classes"), **spec)
        model.load_state_dict(state)
        history = [train.Epoch(**row) for row in header["history"]]
        return cls(model.to(train.default_device()).eval(), history, header["record"])


def _environment(device: torch.device) -> dict[str, Any]:
    name, threads = store.machine(device)
    return {"torch": torch.__version__, "device": name, "threads": threads}


def perturbation(
    method: str,
    images: Images,
    *,
    model: str = "small_resnet",
    epsilon: float | str = 8 / 255,
    seed: int = 0,
    preset: str = "laptop",
    passes: float | None = None,
    **changes: Any,
) -> Poison:
    """`miue.poisons.generate`, cached; arguments and errors are the same."""
    how: dict[str, Any] = {"model": model, "epsilon": epsilon, "seed": seed, "preset": preset}
    how |= {"passes": passes, **changes}
    parts = _of_perturbation(method, images, **how)
    device = train.default_device()

    def make(keep: Checkpoint) -> Poison:
        return poisons.generate(method, images, device=device, keep=keep, **how)

    return store.cached(Poison, make, f"perturbation {method}", **parts)


def find_perturbation(method: str, images: Images, **how: Any) -> Poison | None:
    """What `perturbation` would return for these arguments, if it lies in the cache; nothing is made."""
    return store.find(Poison, **_of_perturbation(method, images, **how))


def _of_perturbation(
    method: str,
    images: Images,
    model: str = "small_resnet",
    epsilon: float | str = 8 / 255,
    seed: int = 0,
    preset: str = "laptop",
    passes: float | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Everything that determines a perturbation."""
    chosen = poisons.options(method, preset, passes=passes, **changes)
    name, _ = parse(method)
    make = METHODS[name].make
    if foreign := store.foreign_code(make, chosen, builder(model)):
        return {"foreign": foreign}
    return {
        "method": name,
        "options": asdict(chosen),
        "model": model,
        "levels": Budget(parse_epsilon(epsilon)).levels,
        "seed": seed,
        "images": images.content_hash,
        "ids": store.key(ids=images.ids.tolist()),
        "code": [store.code_hash(make.__module__), store.code_hash("miue.poisons.base")],
        **_environment(train.default_device()),
    }


def victim(
    images: Images,
    test: Images,
    *,
    model: str = "small_resnet",
    recipe: str = "laptop",
    seed: int = 0,
    twin: str = "none",
    surrogate_seed: int | None = None,
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
        seed: of the victim: its weights, the order of the pictures, the augmentation, the defense.
        twin: what it shares with a surrogate of the same architecture, one of `miue.seeds.TWINS`: "none", "weights"
            (those that it starts from) or "weights+order".
        surrogate_seed: that of the perturbation, for a twin.
        defense: what is done to the training pictures, made by `miue.defenses.build`.
        start: a victim of the same model to start from, with all its weights, or those of its features where the
            classes are others.
        **changes: fields of the recipe to override.

    Raises:
        InputError: unknown model, recipe or field; `start` is another model; a twin without a seed.
    """
    chosen = train.recipe(recipe, **changes)
    device = train.default_device()
    streams = seeds.victim(seed, twin, surrogate_seed)
    parts = _of_victim(images, test, model, recipe, seed, twin, surrogate_seed, defense, start, **changes)

    def make(keep: Checkpoint) -> Victim:
        channels, *size = images.shape
        network = build(model, len(images.classes), channels=channels, size=size, seed=streams.weights)
        if start is not None:
            network.load_state_dict(_weights(start, network), strict=False)
        rows: list[dict[str, Any]] = []
        keep.hold(history=rows)
        trained = train.epochs(
            network, images, chosen, seed=streams, test=test, device=device, defense=defense, keep=keep
        )
        for done in track(trained, f"victim {model}, epochs", chosen.epochs):
            rows.append(asdict(done))
        record = {
            "model": model,
            "recipe": recipe,
            "options": asdict(chosen),
            "precision": precision(chosen.precision, device),
            "seed": seed,
            "twin": twin,
            "surrogate_seed": surrogate_seed,
            "steps": chosen.epochs * train.batches(len(images), chosen),
            "defense": _described(defense),
            "start": None if start is None else {k: start.record[k] for k in ("recipe", "seed", "train")},
            "train": images.record(),
            "test": test.record(),
            "seconds": keep.seconds,
            **store.provenance(device),
        }
        return Victim(network.eval(), [train.Epoch(**row) for row in rows], record)

    return store.cached(Victim, make, f"victim {model}", **parts)


def find_victim(images: Images, test: Images, **how: Any) -> Victim | None:
    """What `victim` would return for these arguments, if it lies in the cache; nothing is trained."""
    return store.find(Victim, **_of_victim(images, test, **how))


def _of_victim(
    images: Images,
    test: Images,
    model: str = "small_resnet",
    recipe: str = "laptop",
    seed: int = 0,
    twin: str = "none",
    surrogate_seed: int | None = None,
    defense: Defense | None = None,
    start: Victim | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Everything that determines a victim."""
    if start is not None and start.model.spec["name"] != model:
        raise InputError(f"start: a {start.model.spec['name']}; it must be a {model}, as the victim is")
    if foreign := store.foreign_code(builder(model), *([] if defense is None else [defense])):
        return {"foreign": foreign}
    return {
        "model": model,
        "options": asdict(train.recipe(recipe, **changes)),
        "streams": seeds.victim(seed, twin, surrogate_seed),
        "images": images.content_hash,
        "test": test.content_hash,
        "defense": _described(defense),
        "start": None if start is None else _digest(start),
        "code": [store.code_hash(module) for module in ("miue.train", *_modules(defense))],
        **_environment(train.default_device()),
    }


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
