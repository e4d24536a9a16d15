"""UC: unlearnable clusters, for images whose labels are unknown or will be others.

Zhang, Ma, Yi, Sang, Jiang, Wang & Xu, "Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples", CVPR 2023:
k-means on the features of a surrogate; for each cluster a small generator turns one fixed noise image into one
perturbation, trained so that the perturbed images' features look like the centre of the next cluster. No label is
read: not by the clusters, not by the generators, and not by the surrogate unless `pretext` says so.

The authors' surrogate is a ResNet-50 from ImageNet or CLIP, and their images are 224 px with a budget of 16/255; here
it is 8/255 unless another is asked for, as for all methods. A pretrained network does not come with this package, so
ours learns from the very images which way up they are (Gidaris, Singh & Komodakis, "Unsupervised Representation
Learning by Predicting Image Rotations", ICLR 2018). Published: 10 clusters, 50 epochs for each generator over all
images, Adam at 1e-4: 500 passes.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 60, a quarter-width VGG-11 59, a two-layer perceptron
44 and a linear network 32 %, where clean training has 59, 61, 45 and 34 %. That budget is half of the published one,
and the surrogate knows no more than these images.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.errors import Count, InputError, Positive, Range, Width
from miue.models import Network, build_for
from miue.models.frozen import Frozen
from miue.pgd import Budget
from miue.poisons.base import Made, Options, Task, blank
from miue.poisons.passes import Loss, Objective, on_outputs, put
from miue.precision import loss_scale, precision
from miue.training import loop
from miue.training.augment import flip_crop
from miue.training.recipes import Recipe

ROLES = ("perturbation", "generator weights", "generator order", "generator augmentation")


class Streams(NamedTuple):
    """The generators behind `ROLES`: of k-means and the noise images; of the networks that turn these into delta."""

    draws: torch.Generator
    weights: torch.Generator
    order: torch.Generator
    augmentation: torch.Generator


@dataclass(frozen=True)
class UC(Options):
    """Options of unlearnable clusters.

    Args:
        surrogate: how the surrogate is trained on the clean images; the generators see its flips and crops too, and
            its precision in the passes through it, while they themselves compute in float32.
        pretext: what the surrogate learns: "rotation", which of four ways an image is turned; "labels", the
            only choice that reads them; or nothing: "untrained", it keeps its random weights.
        clusters: number of clusters, at least 2, for the centre of another must exist.
        pool: the images that train a generator: those of its "cluster", or, as in the authors' code, "all".
        epochs_of_generator: passes over that pool.
        batch_of_generator: images in a batch.
        lr_of_generator: the first learning rate of Adam; it falls to 0 along a cosine.
        width: channels inside a generator.
    """

    surrogate: Recipe
    pretext: Annotated[str, ("rotation", "labels", "untrained")] = "rotation"
    clusters: Annotated[int, Range(2)] = 10
    pool: Annotated[str, ("cluster", "all")] = "cluster"
    epochs_of_generator: Count = 20
    batch_of_generator: Count = 32
    lr_of_generator: Positive = 0.01
    width: Width = 32

    @property
    def passes(self) -> float:
        """Epochs of the surrogate and, for every cluster's generator, passes over its pool."""
        surrogate = 0 if self.pretext == "untrained" else self.surrogate.epochs
        return surrogate + self.epochs_of_generator * (self.clusters if self.pool == "all" else 1)


_SURROGATE = Recipe(epochs=8, lr=0.1, schedule="one_cycle", nesterov=True, flip=True, crop=2, precision="float32")
_QUICK = UC(surrogate=_SURROGATE)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, surrogate=replace(_SURROGATE, epochs=30), epochs_of_generator=60),
    "paper": UC(
        surrogate=replace(_SURROGATE, epochs=60, crop=16),
        pool="all",
        epochs_of_generator=50,
        batch_of_generator=256,
        lr_of_generator=1e-4,
        width=64,
    ),
}


def uc(task: Task) -> Made:
    """Generate one perturbation per cluster; the notes tell how close each came to its target.

    Raises:
        InputError: fewer images than clusters, or images that are not square where the pretext is rotation.
    """
    options: UC = task.options
    images, keep = task.images, task.keep
    if len(images) < options.clusters:
        raise InputError(f"clusters: {options.clusters}; there are only {len(images)} images")
    if options.pretext == "rotation" and images.shape[1] != images.shape[2]:
        shown = " x ".join(map(str, images.shape[1:]))
        raise InputError(f"pretext: rotation; images of {shown} px have no quarter turns, so they must be square")
    network = _surrogate(task)
    streams = Streams(*(task.stream(role) for role in ROLES))
    of_clusters = int(torch.randint(2**32, (), generator=streams.draws))
    cluster_of, centres = find_clusters(loop.features(network, images).cpu(), options.clusters, of_clusters)
    of_cluster = torch.zeros(options.clusters, *images.shape, dtype=torch.int8, device=images.device)
    loss = on_outputs(Frozen(network, options.surrogate.precision), divergence(centres.to(images.device)))
    rows: list[dict[str, Any]] = []
    keep.hold(of_cluster=of_cluster, rows=rows, **streams._asdict())
    for cluster in task.track(range(keep.restore(), options.clusters), "clusters"):
        members = (cluster_of == cluster).nonzero()[:, 0]
        pool = members if options.pool == "cluster" else torch.arange(len(images))
        target = (cluster + 1) % options.clusters
        of_cluster[cluster], losses = _generate(images.subset(pool), target, loss, task.budget, options, streams)
        rows.append({"cluster": cluster, "target": target, "images": len(members), "losses": losses})
        keep.save(cluster + 1)
    delta = blank(images)
    for index in images.chunks():
        put(delta, index, of_cluster[cluster_of[index].to(images.device)])
    moved = nearest(loop.features(network, images.plus(delta)).cpu(), centres)
    for row in rows:
        reached = moved[cluster_of == row["cluster"]].eq(row["target"])
        row["reached"] = float(reached.float().mean())
    return Made(delta, {"clusters": rows})


def _surrogate(task: Task) -> Network:
    """Build the surrogate and train it on the clean images, as far as `options.pretext` wants that."""
    images, options = task.images, task.options
    outputs = len(images.classes) if options.pretext == "labels" else 4
    weights = seeds.surrogate(task.seed).weights
    network = build_for(images, task.surrogate, seed=weights, outputs=outputs).to(images.device)
    if options.pretext != "untrained":
        task.learn(network, defense=Turned() if options.pretext == "rotation" else None)
    return network.eval()


class Turned(loop.Defense):
    """The pretext of telling which way up an image is: every batch is turned, and the quarter turns are its labels."""

    def batch(self, x: Tensor, y: Tensor, context: loop.BatchContext) -> tuple[Tensor, Tensor]:
        """Turn each of the images (B, C, H, H), uint8; the labels `y` are not read."""
        turns = torch.randint(4, (len(x),), generator=context.generator).to(x.device)
        images = x.float() / 255
        for quarters in (1, 2, 3):
            images[turns == quarters] = images[turns == quarters].rot90(quarters, (2, 3))
        return images, turns


def find_clusters(features: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cluster features by k-means, the best of ten starts.

    Args:
        features: (N, d) float.
        clusters: how many; at most N.
        seed: of the starts.

    Returns:
        The cluster of each row, (N,) int64, and the centres, (clusters, d) float32.

    Raises:
        InputError: fewer different features than clusters.
    """
    from sklearn.cluster import KMeans  # a second to import, and only needed here

    with threadpool_limits(1, user_api="openmp"):  # threads add in an order that varies, and a seed must decide
        found = KMeans(clusters, n_init=10, random_state=seed % 2**32).fit(features.numpy())
    cluster_of = torch.from_numpy(found.labels_).long()
    if len(cluster_of.unique()) < clusters:
        raise InputError(f"clusters: {clusters}; the features fall into only {len(cluster_of.unique())}")
    return cluster_of, torch.from_numpy(found.cluster_centers_).float()


def nearest(features: Tensor, centres: Tensor) -> Tensor:
    """The centre (K, d) that lies nearest to each of the features (N, d): (N,) int64."""
    return torch.cdist(features, centres).argmin(1)


def divergence(centres: Tensor) -> Objective:
    """The published objective: KL(softmax of the wanted centre, softmax of the features), the batch's mean.

    Args:
        centres: (K, d); the objective's labels say which of them is wanted.
    """
    wanted = centres.softmax(1)

    def objective(logits: Tensor, features: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(features.log_softmax(1), wanted[target], reduction="batchmean")

    return objective


def _network(channels: int, width: int, seed: int) -> nn.Module:
    """The generator: four convolutions from noise to an image of the same size, which tanh brings into (-1, 1)."""
    with seeds.globally(seed):
        layers: list[nn.Module] = []
        for before in (channels, width, width):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())


def _generate(
    images: Images, target: int, loss: Loss, budget: Budget, options: UC, streams: Streams
) -> tuple[Tensor, list[float]]:
    """Train one generator on `images`; return its perturbation (C, H, W), int8, and the mean loss of each epoch."""
    channels, height, width = images.shape
    limit = budget.levels / 255
    scale = loss_scale(precision(options.surrogate.precision, images.device))  # Adam does not see it
    seed = int(torch.randint(2**31, (), generator=streams.weights))
    network = _network(channels, options.width, seed).to(images.device)
    noise = torch.rand(1, channels, height, width, generator=streams.draws).to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), options.lr_of_generator)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs_of_generator)
    means = []
    for _ in range(options.epochs_of_generator):
        total = 0.0
        for index in torch.randperm(len(images), generator=streams.order).split(options.batch_of_generator):
            x, _ = images.batch(index)
            shown = (x.float() / 255 + limit * network(noise)).clamp(0, 1)
            crop, flip = options.surrogate.crop, options.surrogate.flip
            shown = flip_crop(shown, padding=crop, flip=flip, generator=streams.augmentation)
            value = loss(shown, torch.full((len(x),), target, device=x.device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += float(value.detach()) / scale * len(x)
        if not math.isfinite(total):
            raise FloatingPointError(f"UC: a generator's loss is {total} at learning rate {options.lr_of_generator}")
        schedule.step()
        means.append(total / len(images))
    with torch.no_grad():
        levels = (255 * limit * network(noise)[0]).round().to(torch.int8)
    return levels, means
