"""`train_victim`: a network trained on (perturbed) images and measured on clean ones, made once and kept."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from miue import defenses, seeds
from miue.data.images import Images
from miue.errors import InputError, override
from miue.models import Network, build, build_for, builders
from miue.models.handed import Spec, title
from miue.precision import precision
from miue.progress import track
from miue.storage import cache as storage
from miue.storage import provenance, tensors
from miue.storage.checkpoint import Checkpoint
from miue.storage.code import code_hash, foreign_code
from miue.training.loop import Defense, Epoch, batches, default_device, epochs
from miue.training.recipes import Recipe
from miue.training.recipes import recipe as recipe_of

__all__ = ["Victim", "find_victim", "train_victim"]


@dataclass(frozen=True)
class Victim:
    """A trained network, its learning curve, and the record of how it came to be.

    Example:
        >>> import miue
        >>> train, test = miue.load("digits_m", n_train=40, n_test=20)
        >>> victim = miue.train_victim(train, test, model="mlp2", recipe="quick:epochs=2", cache=False)
        >>> victim.model.spec["name"], [epoch.epoch for epoch in victim.history]
        ('mlp2', [1, 2])
    """

    model: Network
    history: list[Epoch]
    record: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Clean test accuracy after the last epoch, in [0, 1]."""
        return self._curve()[-1]

    @property
    def best(self) -> float:
        """The highest test accuracy of any epoch, in [0, 1]."""
        return max(self._curve())

    def _curve(self) -> list[float]:
        curve = [e.test_accuracy for e in self.history if e.test_accuracy is not None]
        if not curve:
            raise InputError("test: None; this victim was trained without test images, so it has no accuracy")
        return curve

    def save(self, path: str | Path) -> None:
        """Write weights and record to a safetensors file, atomically.

        Raises:
            InputError: the network was handed over as an object, which `load` could not build again.
        """
        if type(self.model) is not Network:
            raise InputError(
                f"victim: a file cannot tell how to build its {self.model.spec['name']} again; save "
                "victim.model.state_dict() with torch.save, and load it into a network made in the same way"
            )
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
            InputError: it is damaged, or no victim.
        """
        state, header = tensors.load(path)
        try:
            spec = header["spec"]
            model = build(spec.pop("name"), spec.pop("n_classes"), **spec)
            model.load_state_dict(state)
            history, record = [Epoch(**row) for row in header["history"]], header["record"]
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise tensors.Damaged(f"{path} holds no victim ({error})") from None
        return cls(model.to(default_device()).eval(), history, record)


def train_victim(
    images: Images,
    test: Images | None = None,
    *,
    model: Spec = "small_resnet",
    recipe: str | Recipe = "laptop",
    seed: int = 0,
    twin: str = "none",
    surrogate_seed: int | None = None,
    defense: Defense | str | None = None,
    start: Victim | None = None,
    device: torch.device | str | None = None,
    cache: bool = True,
    **changes: Any,
) -> Victim:
    """Train a network on (perturbed) `images`, measuring it on the clean `test` after every epoch.

    Args:
        images: training images.
        test: clean test images to measure after every epoch; without them the victim has no accuracy.
        model: one of `miue.models.MODELS`, with options if wanted: "resnet18:width=0.25". Or an object as
            `miue.models.build` takes it: a module that returns (logits, features), of which a copy is trained, from
            the weights that it has, or a function that makes one, whose weights `seed` decides. Such a victim is
            trained anew each time and never kept, for no file could tell how to build it again.
        recipe: one of `miue.training.RECIPES`, with changes if wanted ("laptop:epochs=10"), or a `Recipe`.
        seed: of the victim: its weights, the order of the images, the augmentation, the defense.
        twin: what it shares with a surrogate of the same architecture, one of `miue.seeds.TWINS`: "none", "weights"
            (those that it starts from) or "weights+order".
        surrogate_seed: that of the perturbation, for a twin.
        defense: what is done to the training images: a name ("iss:kind=jpeg"), or what `miue.defenses.build` made.
        start: a victim of the same model to start from, with all its weights, or those of its features where the
            classes are others; not beside a model that is an object, which brings its own.
        device: by default the GPU where there is one.
        cache: take the victim from the cache where it lies there, and keep it; False trains it anew and keeps nothing.
        **changes: fields of the recipe to override.

    Raises:
        InputError: unknown model, recipe, defense or field; `start` is another model; an object that
            `miue.models.build` refuses; a twin without a seed.

    Example:
        >>> import miue
        >>> train, test = miue.load("digits_m", n_train=40, n_test=20)
        >>> victim = miue.train_victim(train, test, model="mlp2", recipe="quick:epochs=2", cache=False)
        >>> 0 <= victim.accuracy <= 1
        True
    """
    how = _how(images, test, model, recipe, seed, twin, surrogate_seed, defense, start, device, **changes)
    if not cache:
        return how.train(Checkpoint())
    return storage.cached(Victim, how.train, f"victim {title(model)}", **how.key())


def find_victim(images: Images, test: Images | None = None, **how: Any) -> Victim | None:
    """What `train_victim` would return for these arguments, all but `start` given, if it lies in the cache."""
    return storage.find(Victim, **_how(images, test, **how).key())


@dataclass(frozen=True)
class _Training:
    """All that determines a victim."""

    images: Images
    test: Images | None
    model: Spec
    recipe: str
    options: Recipe
    seed: int
    twin: str
    surrogate_seed: int | None
    streams: seeds.Training
    defense: Defense | None
    start: Victim | None
    device: torch.device

    def key(self) -> dict[str, Any]:
        """What it is kept under."""
        if foreign := foreign_code(*builders(self.model), *([] if self.defense is None else [self.defense])):
            return {"foreign": foreign}
        modules = () if self.defense is None else (type(self.defense).__module__,)
        return {
            "model": self.model,
            "options": asdict(self.options),
            "streams": self.streams,
            "images": self.images.content_hash,
            "test": None if self.test is None else self.test.content_hash,
            "defense": _described(self.defense),
            "start": None if self.start is None else _digest(self.start),
            "code": [code_hash(module) for module in ("miue.training.loop", *modules)],
            **provenance.environment(self.device),
        }

    def train(self, keep: Checkpoint) -> Victim:
        network = build_for(self.images, self.model, seed=self.streams.weights)
        if self.start is not None:
            network.load_state_dict(_weights(self.start, network), strict=False)
        rows: list[dict[str, Any]] = []
        keep.hold(history=rows)
        trained = epochs(
            network,
            self.images,
            self.options,
            seed=self.streams,
            test=self.test,
            device=self.device,
            defense=self.defense,
            keep=keep,
        )
        for done in track(trained, f"victim {title(self.model)}, epochs", self.options.epochs):
            rows.append(asdict(done))
        start = None if self.start is None else {k: self.start.record[k] for k in ("recipe", "seed", "train")}
        record = {
            "model": title(self.model),
            "recipe": self.recipe,
            "options": asdict(self.options),
            "precision": precision(self.options.precision, self.device),
            "seed": self.seed,
            "twin": self.twin,
            "surrogate_seed": self.surrogate_seed,
            "steps": self.options.epochs * batches(len(self.images), self.options),
            "defense": _described(self.defense),
            "start": start,
            "train": self.images.record(),
            "test": None if self.test is None else self.test.record(),
            "seconds": keep.seconds,
            **provenance.collect(self.device),
        }
        return Victim(network.eval(), [Epoch(**row) for row in rows], record)


def _how(
    images: Images,
    test: Images | None,
    model: Spec,
    recipe: str | Recipe,
    seed: int,
    twin: str,
    surrogate_seed: int | None,
    defense: Defense | str | None,
    start: Victim | None = None,
    device: torch.device | str | None = None,
    **changes: Any,
) -> _Training:
    """Look everything up that is given by name."""
    if start is not None and not isinstance(model, str):
        raise InputError(f"start: beside {title(model)}; load its weights into that network, and leave start out")
    if start is not None and start.model.spec["name"] != model:
        raise InputError(f"start: a {start.model.spec['name']}; it must be a {model}, as the victim is")
    if isinstance(defense, str):
        defense = defenses.build(defense)
    given = override(recipe, changes, "recipe") if isinstance(recipe, Recipe) else recipe_of(recipe, **changes)
    streams = seeds.victim(seed, twin, surrogate_seed)
    device = torch.device(device or default_device())
    name = recipe if isinstance(recipe, str) else "custom"
    return _Training(images, test, model, name, given, seed, twin, surrogate_seed, streams, defense, start, device)


def _described(defense: Defense | None) -> dict[str, Any] | None:
    if defense is None:
        return None
    told = getattr(defense, "record", None)  # somebody's own may have none
    return {"defense": type(defense).__name__} if told is None else told()


def _weights(start: Victim, network: Network) -> dict[str, torch.Tensor]:
    """What of the weights of `start` fits `network`: all, or all but the head."""
    same = start.model.spec["n_classes"] == network.spec["n_classes"]
    return {name: w for name, w in start.model.state_dict().items() if same or not name.startswith("head.")}


def _digest(victim: Victim) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in victim.model.state_dict().items():
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
