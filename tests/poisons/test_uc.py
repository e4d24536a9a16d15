import pytest
import torch
import torch.nn.functional as F
from samples import some_images

from miue import Images
from miue.errors import InputError
from miue.poisons import options, perturb
from miue.poisons.methods.uc import Turned, divergence, find_clusters, nearest
from miue.training.loop import BatchContext

TINY = {"preset": "quick", "device": "cpu", "epochs": 1, "batch": 24, "clusters": 3, "width": 8}


def blobs(per_cluster=20, seed=0):
    """Features in three far-apart groups, in turn."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.0, 0, 9], [0, 9, 0], [9, 0, 0]])
    return centres.repeat(per_cluster, 1) + 0.1 * torch.randn(3 * per_cluster, 3, generator=generator)


@pytest.mark.parametrize("pretext", ["untrained", "rotation"])
def test_no_label_is_read(pretext, images):
    """Other labels, and another number of classes, leave delta as it is, bit for bit."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    relabelled = Images(images.x, images.y[order], images.classes)
    fewer = Images(images.x, images.y % 2, ["even", "odd"])
    one, two, three = (
        perturb(i, "uc", **TINY, pretext=pretext, epochs_of_generator=2, cache=False).delta
        for i in (images, relabelled, fewer)
    )
    assert torch.equal(one, two) and torch.equal(one, three)


def test_a_surrogate_that_learns_labels_reads_them(images):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    relabelled = Images(images.x, images.y[order], images.classes)
    one, two = (
        perturb(i, "uc", **TINY, pretext="labels", epochs_of_generator=2, cache=False).delta
        for i in (images, relabelled)
    )
    assert not torch.equal(one, two)


def test_every_cluster_shares_one_delta_and_every_image_has_its_clusters():
    x = torch.randint(60, 190, (48, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(x, torch.arange(48) % 4)
    poison = perturb(images, "uc", **TINY, epochs_of_generator=3, cache=False)
    different, counts = poison.delta.unique(dim=0, return_counts=True)
    rows = poison.record["notes"]["clusters"]
    assert len(different) == 3
    assert sorted(counts.tolist()) == sorted(row["images"] for row in rows)
    assert [row["target"] for row in rows] == [1, 2, 0]


@pytest.mark.parametrize("pool", ["cluster", "all"])
def test_losses_fall_and_features_reach_the_next_centre(pool):
    images = some_images(n=48)
    changes = {"pretext": "untrained", "pool": pool, "epochs_of_generator": 10, "lr_of_generator": 0.02}
    poison = perturb(
        images, "uc", **TINY | {"clusters": 2}, **changes, flip=False, crop=0, epsilon="32/255", cache=False
    )
    rows = poison.record["notes"]["clusters"]
    for row in rows:
        assert len(row["losses"]) == 10 and row["losses"][-1] < 0.8 * row["losses"][0]
    assert sum(row["reached"] * row["images"] for row in rows) / 48 > 0.5


def test_clusters_are_found_and_the_seed_decides():
    features = blobs()
    cluster_of, centres = find_clusters(features, 3, seed=0)
    for group in range(3):
        assert len(cluster_of[group::3].unique()) == 1
    assert len(cluster_of.unique()) == 3
    assert torch.equal(nearest(features, centres), cluster_of)
    again, same = find_clusters(features, 3, seed=0)
    assert torch.equal(cluster_of, again) and torch.equal(centres, same)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_clusters_that_cannot_be_are_refused(images):
    with pytest.raises(InputError, match="clusters: 3; the features fall into only 1"):
        find_clusters(torch.zeros(9, 2), 3, seed=0)
    with pytest.raises(InputError, match="clusters: 49; there are only 48 images"):
        perturb(images, "uc", **TINY | {"clusters": 49}, cache=False)
    with pytest.raises(InputError, match="pretext: 'colour' does not exist; choose one of rotation, labels, untrained"):
        options("uc", "quick", pretext="colour")


def test_images_that_are_not_square_cannot_be_turned_but_clustered_by_labels():
    wide = Images(torch.randint(0, 256, (24, 3, 8, 12), dtype=torch.uint8), torch.arange(24) % 4)
    with pytest.raises(InputError, match="pretext: rotation; images of 8 x 12 px have no quarter turns"):
        perturb(wide, "uc", **TINY, cache=False)
    assert perturb(wide, "uc", **TINY | {"pretext": "labels"}, cache=False).delta.shape == (24, 3, 8, 12)


def test_the_divergence_is_kullback_and_leiblers_from_the_wanted_centre():
    centres, features = torch.randn(3, 5), torch.randn(4, 5)
    target = torch.tensor([0, 2, 2, 1])
    p, q = F.softmax(centres[target], 1), F.softmax(features, 1)
    expected = (p * (p / q).log()).sum(1).mean()
    loss = divergence(centres)
    assert torch.allclose(loss(features, features, target), expected, atol=1e-6)
    assert loss(centres, centres, torch.arange(3)).abs() < 1e-6


def test_the_pretext_turns_each_image_by_its_own_label():
    context = BatchContext(lambda shown, labels: labels, 4, torch.Generator().manual_seed(0), torch.Generator(), 0.0)
    images = some_images(n=32)
    turned, quarters = Turned().batch(images.x, images.y, context)
    assert quarters.unique().tolist() == [0, 1, 2, 3]
    for image, before, quarter in zip(turned, images.x, quarters.tolist(), strict=True):
        assert torch.equal((255 * image).round().byte(), before.rot90(quarter, (1, 2)))


def test_presets_cost_what_they_promise_and_the_paper_preset_is_the_papers():
    assert options("uc", "quick").passes < 30 and options("uc", "laptop").passes < 120
    paper = options("uc", "paper")
    assert (paper.clusters, paper.pool, paper.epochs_of_generator, paper.batch_of_generator) == (10, "all", 50, 256)
    assert paper.lr_of_generator == 1e-4 and paper.passes - paper.surrogate.epochs == 500
    assert options("uc", "paper", pretext="untrained").passes == 500
