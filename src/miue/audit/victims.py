"""Those who might train on a folder: small networks from scratch, and features that were learned elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.swa_utils import update_bn

from miue import seeds
from miue.data.images import Images
from miue.defenses import build as defense_of
from miue.errors import InputError, printable
from miue.models import Network, build_for, wrap
from miue.storage.tensors import Damaged
from miue.training import features
from miue.victim import Victim, train_victim

Answers = Callable[[Images], np.ndarray]  # of images: the class that each is taken for, (N,)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision has them


@dataclass(frozen=True)
class Trainer:
    """One way to train on images.

    Args:
        name: as tables show it.
        train: of training images, a countermeasure or None, and a seed: makes what answers.
        squeezed: whether it is tried with countermeasures, too.
    """

    name: str
    train: Callable[[Images, str | None, int], Answers]
    squeezed: bool = False


def from_scratch(model: str, recipe: str, squeezed: bool = False) -> Trainer:
    """Train a network from random weights."""

    def train(images: Images, defense: str | None, seed: int) -> Answers:
        return answers(train_victim(images, model=model, recipe=recipe, seed=seed, defense=defense, cache=False).model)

    return Trainer(model, train, squeezed)


def probe(name: str, network: Callable[[Images, int], nn.Module]) -> Trainer:
    """Fit a linear classifier on the features of a network that is not trained on these images."""

    def train(images: Images, defense: str | None, seed: int) -> Answers:
        frozen = network(images, seed).eval()
        if defense is not None:
            images = defense_of(defense).prepare(images, seed)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        fitted.fit(features(frozen, images).cpu().numpy(), images.y.numpy())
        return lambda shown: np.asarray(fitted.predict(features(frozen, shown).cpu().numpy()))

    return Trainer(name, train)


def random_features() -> Trainer:
    """A linear classifier on the features of a network that nobody trained."""

    def network(images: Images, seed: int) -> nn.Module:
        made = build_for(images, "small_resnet:width=4", seed=seeds.derived(seed, "victim weights"))
        seen = torch.arange(min(512, len(images))).split(64)
        shown = (images.batch(index)[0].float() / 255 for index in seen if len(index) > 1)
        update_bn(shown, made)  # so that features of random weights have a scale
        return made

    return probe("linear on random features", network)


def of_victim(start: Victim, name: str, recipe: str) -> list[Trainer]:
    """Take over the features of a network that somebody trained on other images: as they are, and trained further."""

    def fine_tune(images: Images, defense: str | None, seed: int) -> Answers:
        spec = start.model.spec["name"]
        made = train_victim(
            images, model=spec, recipe=recipe, seed=seed, start=start, defense=defense, cache=False, lr=0.02
        )
        return answers(made.model)

    return [probe(f"linear on {name}", lambda images, seed: start.model), Trainer(f"{name}, fine-tuned", fine_tune)]


def of_torchvision(name: str, file: Path) -> Trainer:
    """Fit a linear classifier on the features of a network of torchvision, whose weights lie in `file`."""
    from torchvision.models import get_model

    def network(images: Images, seed: int) -> nn.Module:
        module = get_model(name, weights=None)
        module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return wrap(module, size=224, mean=MEAN, std=STD)

    return probe(f"linear on torchvision's {name}", network)


def answers(model: Network) -> Answers:
    """What a network takes images for."""
    return lambda images: model.head(features(model, images)).argmax(1).cpu().numpy()


def chosen(models: list[str], recipe: str, backbone: str | Path | None) -> list[Trainer]:
    """The trainers of an audit: the named networks from scratch, random features, and what lies on this machine.

    Raises:
        InputError: `backbone` is no file of a trained network.
    """
    from miue.models import vision  # seconds to import

    trainers = [from_scratch(model, recipe, squeezed=number == 0) for number, model in enumerate(models)]
    trainers.append(random_features())
    trainers += [of_torchvision(name, file) for name, file in vision.local_weights().items()]
    if backbone is not None:
        trainers += of_victim(_loaded(Path(backbone)), printable(Path(backbone).stem), recipe)
    return trainers


def _loaded(file: Path) -> Victim:
    try:
        return Victim.load(file)
    except FileNotFoundError:
        raise InputError(printable(f"backbone: {file} does not exist")) from None
    except Damaged as error:
        raise InputError(printable(f"backbone: {error}")) from None


def accuracy(ask: Answers, images: Images) -> float:
    """Share of images that are taken for what they are, in [0, 1]."""
    return float((ask(images) == images.y.numpy()).mean())
