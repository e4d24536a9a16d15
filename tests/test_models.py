import hashlib
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from samples import fitted, some_images
from torch.fx.experimental.optimization import fuse

from miue import Images
from miue.errors import InputError
from miue.models import MODELS, build, check, forward
from miue.training import loop, recipes
from miue.victim import Victim

WIDE = [name for name in MODELS if name != "linear"]


def thin(name, width=0.1):
    return name if name == "linear" else f"{name}:width={width}"


def weights(model):
    return sum(p.numel() for p in model.parameters())


def digest(model):
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def multiply_adds(model, size=32):
    work = []

    def count(layer, inputs, out):
        work.append(layer.weight.numel() * (out.shape[2] * out.shape[3] if out.ndim == 4 else 1))

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.rand(1, model.spec["channels"], size, size))
    return sum(work)


def keeps_the_contract(spec, channels, size, classes):
    model = build(spec, classes, channels=channels, size=size).eval()
    x = torch.rand(2, channels, size, size, requires_grad=True)
    logits, features = forward(model, x)
    assert logits.shape == (2, classes) and features.shape == (2, model.head.in_features)
    assert logits.dtype == features.dtype == torch.float32
    assert torch.equal(model.head(features), logits)
    logits.logsumexp(1).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()
    fused = fuse(model)(x)[0]  # what the methods attack
    torch.testing.assert_close(fused, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 8, 3), (1, 28, 10), (3, 64, 100)])
def test_logits_features_and_gradients(name, channels, size, classes):
    keeps_the_contract(thin(name), channels, size, classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "vit"])
@pytest.mark.parametrize("size", [(28, 40), (14, 8), (8, 100)])
def test_images_need_not_be_square(name, size):
    x = torch.randint(0, 256, (8, 3, *size), dtype=torch.uint8)
    images = Images(x, torch.arange(8) % 4)
    model = fitted(images, thin(name), recipes.recipe("quick", epochs=1, batch=4))
    model(x.float()[:2])[0].sum().backward()
    again = build(model.spec.pop("name"), model.spec.pop("n_classes"), **json.loads(json.dumps(model.spec)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x.float())[0], model(x.float())[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_logits_features_and_gradients_at_full_width(name):
    keeps_the_contract(name, 3, 32, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_channel_at_224_px(name):
    keeps_the_contract(thin(name), 1, 224, 3)


@pytest.mark.parametrize("name", ["small_resnet", "resnet18", "resnet50", "densenet121", "wrn34_10"])
def test_stems_do_not_shrink_small_images(name):
    """A torchvision stem left as it is shrinks 32 px to 8 before the first block, and CIFAR-10 accuracy to 50 %."""

    def first_strides(size):
        convolutions = [m for m in build(thin(name), 2, size=size).body.modules() if isinstance(m, torch.nn.Conv2d)]
        return convolutions[0].stride, convolutions[0].kernel_size

    assert first_strides(32) == first_strides(64) == ((1, 1), (3, 3))
    if name != "small_resnet":
        assert first_strides(224) == ((2, 2), (7, 7))


@pytest.mark.parametrize(
    ("spec", "settings", "expected"),
    [
        ("small_resnet", {}, "86b2013989969e3f"),
        ("small_resnet", {"channels": 1}, "f105041d92532723"),
        ("small_resnet", {"size": 64, "seed": 3}, "c3d9ede7ee96d9ad"),
        ("resnet18", {}, "70fd3b689545bf5c"),
        pytest.param("resnet18", {"channels": 1}, "e55df80e4cbe2e67", marks=pytest.mark.slow),
        pytest.param("resnet18", {"size": 64, "seed": 3}, "4af2a3d83917043e", marks=pytest.mark.slow),
        pytest.param("resnet18", {"size": 224, "seed": 1}, "e32085ae6132a2f7", marks=pytest.mark.slow),
        pytest.param("resnet18", {"size": 224, "channels": 1}, "550be835deaa7c0a", marks=pytest.mark.slow),
    ],
)
def test_a_seed_gives_the_weights_that_it_always_gave(spec, settings, expected):
    """Published numbers rest on these draws (of torch's generator, the same on every processor)."""
    assert digest(build(spec, 10, **settings)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides_and_the_global_state_stays(name):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (digest(build(thin(name), 4, size=8, seed=s)) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert one == same != other


@pytest.mark.parametrize(
    ("spec", "mmac", "million"),
    [
        ("small_resnet", 12.8, 0.0781),
        ("linear", 0.0307, 0.0307),
        ("mlp2", 1.578, 1.579),
        ("mlp3", 1.840, 1.841),
        ("lenet5", 0.6517, 0.0620),
        ("resnet18:width=0.25", 35.0, 0.701),
        pytest.param("vgg11", 153, 9.231, marks=pytest.mark.slow),
        pytest.param("vgg19", 398, 20.04, marks=pytest.mark.slow),
        pytest.param("resnet18", 555.4, 11.174, marks=pytest.mark.slow),
        pytest.param("resnet50", 1298, 23.52, marks=pytest.mark.slow),
        pytest.param("densenet121", 888, 6.956, marks=pytest.mark.slow),
        pytest.param("wrn34_10", 6659, 46.16, marks=pytest.mark.slow),
    ],
)
def test_work_and_size_at_32_px_are_the_known_ones(spec, mmac, million):
    model = build(spec, 10)
    assert multiply_adds(model) == pytest.approx(mmac * 1e6, rel=3e-3)
    assert weights(model) == pytest.approx(million * 1e6, rel=1e-3)


def test_lenet5_is_that_of_1998_for_digits():
    assert weights(build("lenet5", 10, channels=1)) == weights(build("lenet5", 10, channels=1, size=28)) == 61_706


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "n"), [("vit", 85_806_346), ("densenet121", 6_964_106), ("resnet50", 23_528_522)])
def test_at_224_px_they_are_torchvisions_own(spec, n):
    """The published networks with a head of ten classes, ViT-B/16 among them."""
    assert weights(build(spec, 10, size=224)) == n


@pytest.mark.parametrize("name", WIDE)
def test_half_the_width_is_a_quarter_of_the_weights(name):
    half, quarter = (weights(build(thin(name, width), 10, size=16).body) for width in (0.25, 0.125))
    if name.startswith(("mlp", "lenet")):  # their first layer, which sees all pixels or few channels, rules
        assert 0.2 < quarter / half < 0.52
    else:
        assert 0.22 < quarter / half < 0.31


def test_a_thin_resnet18_has_the_planes_it_should():
    body = build("resnet18:width=0.25", 10).body
    assert [body.conv1.out_channels, body.layer1[0].conv1.out_channels] == [16, 16]
    assert [getattr(body, f"layer{i}")[1].conv2.out_channels for i in (1, 2, 3, 4)] == [16, 32, 64, 128]
    assert body.layer1[0].downsample is None


@pytest.mark.parametrize("name", ["small_resnet", "resnet18", "wrn34_10"])
def test_thin_shortcuts_survive_training_at_64_px(name):
    """A strided 1x1 convolution of few channels wrote past its memory in backward; see `plain.Every`."""
    model = build(thin(name, 0.125), 2, size=64)
    for _ in range(3):
        forward(model, torch.rand(2, 3, 64, 64))[0].square().sum().backward()
    strided = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
    assert strided and all(m.stride == (1, 1) for m in strided)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_picking_pixels_first_is_the_strided_convolution():
    from miue.models.plain import Every

    x, w = torch.rand(2, 16, 9, 9), torch.rand(4, 16, 1, 1)
    torch.testing.assert_close(F.conv2d(Every(2)(x), w), F.conv2d(x, w, stride=2))


def test_vgg_pools_only_while_there_is_something_to_pool():
    pools = {
        size: sum(isinstance(m, torch.nn.MaxPool2d) for m in build("vgg11:width=0.1", 2, size=size).modules())
        for size in (8, 16, 32, 64)
    }
    assert pools == {8: 3, 16: 4, 32: 5, 64: 5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet99", "model: 'resnet99' does not exist; choose one of small_resnet, linear"),
        ("resnet18:depth=3", "option of resnet18: 'depth' does not exist; choose one of width"),
        ("resnet18:width", "write it as NAME=VALUE"),
        ("resnet18:width=0", "width of resnet18: 0; it must be above 0 and at most 8"),
        ("resnet18:width=-1", "width of resnet18: -1"),
        ("vit:width=9", "width of vit: 9"),
        ("vit:width=nan", "width of vit: nan"),
        ("vit:width=true", "width of vit: True"),
        ("vit:width=thin", "width of vit: 'thin'"),
        ("linear:width=0.5", "model: 'linear:width=0.5'; linear has no options"),
        ("", "model: '' does not exist"),
    ],
)
def test_bad_names_are_refused_before_anything_is_built(spec, message):
    for refuse in (check, lambda spec: build(spec, 10)):
        with pytest.raises(InputError) as error:
            refuse(spec)
        assert message in str(error.value)


def test_what_cannot_be_built_is_refused():
    assert check("wrn34_10:width=0.1") == "wrn34_10:width=0.1"
    with pytest.raises(InputError, match="n_classes: 1"):
        build("small_resnet", 1)
    with pytest.raises(InputError, match="size: images of 7 px; networks need at least 8"):
        build("small_resnet", 2, size=7)
    with pytest.raises(InputError, match="vit: images of 30 px; cut into patches of 4 px"):
        build("vit", 2, size=30)
    with pytest.raises(InputError, match="vit: images of 32 x 16 px; they must be square"):
        build("vit", 2, size=(32, 16))
    with pytest.raises(InputError, match="size: images of 7 px"):
        build("mlp2", 2, size=[28, 7])


@pytest.mark.slow
def test_torchvision_is_imported_only_for_its_networks():
    code = (
        "import sys; from miue.models import build, check; check('resnet18'); build('wrn34_10:width=0.1', 2, size=8);"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("spec", ["small_resnet", "resnet18:width=0.1", "vit:width=0.1"])
def test_a_saved_victim_finds_its_network_again(spec, tmp_path):
    images = some_images(n=8)
    network = build(spec, 4, size=8)
    history = list(loop.epochs(network, images, recipes.recipe("quick", epochs=1, batch=4), seed=0, test=images))
    Victim(network.eval(), history, {"model": spec}).save(tmp_path / "v.safetensors")
    loaded = Victim.load(tmp_path / "v.safetensors")
    assert loaded.model.spec["name"] == spec and digest(loaded.model) == digest(network)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded.model(x)[0], network(x)[0])
