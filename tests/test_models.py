import pytest
import torch

from miue.errors import InputError
from miue.models import MODELS, build, forward, precision


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 32, 3), (3, 64, 100)])
def test_every_model_returns_logits_and_what_feeds_the_last_layer(name, channels, size, classes):
    model = build(name, classes, channels=channels, size=size).eval()
    logits, features = forward(model, torch.rand(2, channels, size, size))
    assert logits.shape == (2, classes) and features.ndim == 2
    assert logits.dtype == features.dtype == torch.float32
    assert torch.equal(model.head(features), logits)


def test_resnet18_at_224_px_has_its_own_stem():
    assert build("resnet18", 2, size=224).body.conv1.stride == (2, 2)
    assert build("resnet18", 2, size=32).body.conv1.stride == (1, 1)
    model = build("resnet18", 2, channels=1, size=224).eval()
    assert forward(model, torch.rand(1, 1, 224, 224))[1].shape == (1, 512)


def test_small_resnet_is_the_twelve_million_one():
    model = build("small_resnet", 10)
    work = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, out: work.append(layer.weight.numel() * out.shape[2] * out.shape[3])
            )
    model(torch.rand(1, 3, 32, 32))
    assert sum(work) == pytest.approx(12.5e6, rel=0.03)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(78_000, rel=0.02)


def test_the_seed_decides_and_the_global_state_stays():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build("small_resnet", 4, seed=s).head.weight for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_unknown_models_and_single_classes_are_refused():
    with pytest.raises(InputError, match="model: 'resnet99' does not exist; choose one of small_resnet"):
        build("resnet99", 10)
    with pytest.raises(InputError, match="n_classes: 1"):
        build("small_resnet", 1)


def test_precision_is_resolved_or_refused():
    assert precision("float32", torch.device("cpu")) == "float32"
    assert precision("auto", torch.device("cpu")) in ("float32", "bfloat16")
    with pytest.raises(InputError, match="precision: 'half'"):
        precision("half", torch.device("cpu"))
