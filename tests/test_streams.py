"""No two random decisions of one computation begin with the same seed, and a victim of that number shares none."""

import pretend
import pytest
import torch
from poisons.test_methods_contract import SMALL
from samples import fitted, some_images

from miue import models, seeds
from miue.defenses import Avatar, build
from miue.defenses.base import Defense
from miue.defenses.d_vae import Stage
from miue.defenses.detection import detect, learnability, linear_probe
from miue.poisons import perturb
from miue.poisons.methods import tap, uc
from miue.poisons.methods.pue import noisy_accuracies
from miue.training import loop

SHORT = loop.Recipe(epochs=1, lr=0.05, schedule="constant", batch=24, precision="float32")
IMAGES = some_images()
ROLE = {seeds.derived(0, role): role for role in seeds.ROLES}


class Begun(list):
    """Seeds that generators began with, in order, and on which device."""

    def __init__(self):
        self.devices = {}

    @property
    def roles(self):
        return [ROLE.get(seed) for seed in self]


@pytest.fixture
def begun(monkeypatch):
    found, globally = Begun(), torch.manual_seed

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            found.append(seed)
            found.devices[seed] = self.device.type
            return super().manual_seed(seed)

    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (found.append(seed), globally(seed))[1])
    return found


def make(method, **options):
    return perturb(
        IMAGES, method, preset="quick", surrogate="lenet5", device="cpu", **SMALL[method] | options, cache=False
    )


@pytest.mark.parametrize(
    "prepare",
    [
        build("d_vae", epochs=1, width=4, latent=4).prepare,
        build("orthogonal_projection", epochs=1).prepare,
        build("sda_an", epochs=1, steps=1, width=0.1).prepare,
        Avatar(denoise=lambda x, step: 0 * x, depth=2, steps=1).prepare,
        lambda images, seed: (linear_probe(images, recipe=SHORT), learnability(images, recipe=SHORT)),
    ],
    ids=["d_vae", "projection", "sda_an", "avatar", "probes"],
)
def test_what_purifies_or_probes_is_a_stranger_to_victim_and_to_itself(prepare, begun):
    prepare(IMAGES, 0)
    own = [seed for seed in begun if ROLE.get(seed) != "probe"]  # both probes hold out the same images
    assert own and len(set(own)) == len(own)
    assert set(own).isdisjoint({0, *seeds.victim(0), *seeds.surrogate(0)})


def test_only_noise_is_drawn_on_the_device(gpu, begun):
    network = build("d_vae", epochs=1, width=4, latent=4)
    network.train(IMAGES.on(pretend.DEVICE), Stage(1.0, 0.5), 0, "test")
    assert [ROLE[seed] for seed in begun if begun.devices.get(seed, "cpu") != "cpu"] == ["victim noise"]


def test_two_sets_are_cut_by_one_draw_and_split_by_another(begun):
    detect(IMAGES, IMAGES.subset(torch.arange(40)))
    assert begun.roles.count("probe cut") == 2 and begun.roles.count("probe") == 4


def test_what_a_defense_prepares_is_not_drawn_as_its_batches_are(begun):
    class Drawing(Defense):
        def prepare(self, images, seed):
            torch.Generator().manual_seed(seed)
            return images

    fitted(IMAGES, "linear", SHORT, defense=Drawing())
    assert len(set(begun)) == len(begun) == 6 and set(seeds.victim(0)) < set(begun)


@pytest.mark.parametrize("method", ["em", "tap"])
def test_the_critic_that_shapes_delta_is_begun_once_and_is_not_the_one_that_measures(method, begun):
    make(method, mine=0.1, epochs=1)
    assert begun.roles.count("perturbation critic") == 1 and "critic" not in begun.roles


def test_restarts_begin_with_different_critics(monkeypatch):
    first, begin = [], tap.Mine

    def note(*args):
        mine = begin(*args)
        first.append(mine.critic.parameters[0].detach().clone())
        return mine

    monkeypatch.setattr(tap, "Mine", note)
    make("tap", mine=0.1, epochs=1)
    assert len(first) == 2 and not torch.equal(*first)


def test_a_certificate_draws_no_noise_that_made_the_perturbation(begun):
    network = models.build("linear", 4, size=8)
    noisy_accuracies(network, IMAGES, sigma=0.1, draws=1)
    assert begun.roles[-1] == "certificate noise"


def test_the_players_of_gue_meet_the_images_in_orders_of_their_own(begun):
    make("gue")
    assert sorted(map(str, begun.roles)) == [
        "generator order",
        "generator weights",
        "surrogate order",
        "surrogate weights",
    ]


def test_the_generators_of_uc_have_weights_noise_order_and_crops_of_their_own(monkeypatch, begun):
    weights, network = [], uc._network
    monkeypatch.setattr(uc, "_network", lambda *args: (weights.append(args[-1]), network(*args))[1])
    make("uc", epochs_of_generator=1)
    assert set(uc.ROLES) <= set(begun.roles)
    make("uc", epochs_of_generator=2)
    assert weights[:3] == weights[3:] and len(set(weights)) == 3, "longer training draws other weights"
