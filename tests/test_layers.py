import pytest
import torch

from miue.errors import InputError
from miue.models import MODELS, build
from miue.models.stages import STAGES, activations, layers

EXPECTED = {
    "linear": "features",
    "mlp2": "features",
    "mlp3": "hidden1 features",
    "lenet5": "conv1 conv2 hidden1 features",
    "small_resnet": "stem stage1 stage2 features",
    "vgg11": "stage1 stage2 stage3 stage4 features",
    "vgg19": "stage1 stage2 stage3 stage4 features",
    "resnet18": "stem stage1 stage2 stage3 features",
    "resnet50": "stem stage1 stage2 stage3 features",
    "densenet121": "stem stage1 stage2 stage3 stage4 features",
    "wrn34_10": "stem stage1 stage2 stage3 features",
    "vit": "block1 block2 block3 block4 block5 block6 block7 features",
}


def thin(name):
    return build(name if name == "linear" else f"{name}:width=0.1", 4, channels=1, size=16)


def test_every_model_has_its_stages():
    assert STAGES.keys() == MODELS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", MODELS)
def test_activations_are_named_flat_and_end_in_the_features(name):
    model = thin(name)
    images = torch.rand(3, 1, 16, 16)
    found = activations(model, images)
    assert " ".join(found) == EXPECTED[name] == " ".join(name for name, _ in layers(model))
    for stage in found.values():
        assert stage.ndim == 2 and len(stage) == 3 and stage.dtype == torch.float32
        assert not stage.requires_grad and stage.isfinite().all() and stage.std() > 0
    assert model.training and not any(module._forward_hooks for module in model.modules())
    model.eval()
    torch.testing.assert_close(found["features"], model(images)[1])


def test_a_stage_is_the_mean_of_its_map():
    model = thin("small_resnet").eval()
    images = torch.rand(2, 1, 16, 16)
    stem = model.body[0]((images - 0.5) / 0.25)
    found = activations(model, images)
    torch.testing.assert_close(found["stem"], stem.mean((2, 3)))
    torch.testing.assert_close(found["stage1"], model.body[1](stem).mean((2, 3)))


def test_the_stages_of_a_transformer_are_means_over_its_tokens():
    model = thin("vit").eval()
    tokens = []
    model.body.encoder.layers[0].register_forward_hook(lambda block, inputs, output: tokens.append(output))
    found = activations(model, torch.rand(2, 1, 16, 16))
    assert tokens[0].shape == (2, 1 + 16, 36)
    torch.testing.assert_close(found["block1"], tokens[0].mean(1))


def test_a_network_of_ones_own_is_refused():
    with pytest.raises(InputError, match="model: the stages of a Linear are unknown"):
        activations(torch.nn.Linear(2, 2), torch.rand(1, 2))
