"""ResNet38 as the paper describes it, and its public ImageNet file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.imagenet_weights import load_imagenet_weights
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier, ResNet38

NARROW = 1 / 32


def count(width: float) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ResNet38(width).parameters())


def test_parameter_counts():
    assert count(1) == 105_070_912
    assert count(1 / 4) == pytest.approx(6.6e6, rel=0.01)
    assert count(1 / 8) == pytest.approx(1.65e6, rel=0.01)


def test_stages_at_full_width():
    with torch.device("meta"):
        body = ResNet38()
        x = body.stem(torch.zeros(2, 3, 256, 256))
        shapes = []
        for part in (body.b2, body.b3, body.b4, body.b5, body.b6, body.b7):
            x = part(x)
            shapes.append(tuple(x.shape[1:]))
        classifier = CamClassifier(body)
        maps = classifier(torch.zeros(2, 1, 256, 256))
    assert shapes == [
        (128, 128, 128),
        (256, 64, 64),
        (512, 32, 32),
        (1024, 32, 32),
        (2048, 32, 32),
        (4096, 32, 32),
    ]
    assert body.features_channels == 4096
    assert maps.shape == (2, 2, 32, 32)


def test_dilations_are_those_of_the_paper():
    with torch.device("meta"):
        body = ResNet38(NARROW)
    by_stage = {
        name: [conv.dilation[0] for conv in getattr(body, name).modules() if isinstance(conv, nn.Conv2d)]
        for name in ("b4", "b5", "b6", "b7")
    }
    assert set(by_stage["b4"]) == {1}
    assert by_stage["b5"] == [1, 2, 1, 2, 2, 2, 2]  # the third is the shortcut
    assert by_stage["b6"] == by_stage["b7"] == [1, 4, 1, 1]


def test_pooled_maps_are_a_linear_layer_on_pooled_features():
    torch.manual_seed(0)
    classifier = CamClassifier(ResNet38(NARROW)).eval()
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        logits = classifier(slices).mean((2, 3))
        pooled = classifier.body(slices).mean((2, 3))
    torch.testing.assert_close(logits, pooled @ classifier.head.weight[:, :, 0, 0].T)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    body = ResNet38(NARROW).eval()
    slices = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(body(slices), body(slices))
        for block in (body.b6, body.b7):
            block.dropout.train()
        assert not torch.equal(body(slices), body(slices))
    assert (body.b6.dropout.p, body.b7.dropout.p) == (0.3, 0.5)


def test_bfloat16_and_channels_last():
    torch.manual_seed(0)
    body = ResNet38(NARROW).eval()
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = body(slices)
        body.to(torch.bfloat16, memory_format=torch.channels_last)
        features = body(slices.bfloat16())
    assert features.dtype == torch.bfloat16
    assert (features - expected).abs().max() < 0.05 * expected.abs().max()


def test_every_parameter_learns():
    classifier = CamClassifier(ResNet38(NARROW))
    classifier(torch.rand(2, 1, 32, 32)).mean((2, 3)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())


LAYERS = {
    "norm1": "bn_branch2a",
    "conv1": "conv_branch2a",
    "norm2": "bn_branch2b1",
    "conv2": "conv_branch2b1",
    "norm3": "bn_branch2b2",
    "conv3": "conv_branch2b2",
    "shortcut": "conv_branch1",
}


def public_key(key: str) -> str:
    """The name of one of our parameters in the public file."""
    first, *rest = key.split(".")
    if first in ("stem", "norm"):
        return ".".join([{"stem": "conv1a", "norm": "bn7"}[first], *rest])
    if rest[0].isdigit():
        index = rest.pop(0)
        first += "" if index == "0" else f"_{index}"
    return ".".join([first, LAYERS[rest[0]], *rest[1:]])


@pytest.fixture
def imagenet(tmp_path):
    """A stand-in of the public file: its key names, few channels, without the batch counts it lacks."""
    torch.manual_seed(1)
    body = ResNet38(NARROW)
    for norm in (module for module in body.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    state = {
        public_key(key): value for key, value in body.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    path = tmp_path / "ilsvrc.pth"
    torch.save(state, path)
    return path, state, body.eval()


def test_public_key_names(imagenet):
    _, state, _ = imagenet
    assert {
        "conv1a.weight",
        "b2.bn_branch2a.running_mean",
        "b2.conv_branch1.weight",
        "b2_1.conv_branch2b1.weight",
        "b4_5.conv_branch2a.weight",
        "b6.bn_branch2b2.bias",
        "b7.conv_branch2b2.weight",
        "bn7.running_var",
    } <= state.keys()
    assert "b2_1.conv_branch1.weight" not in state


def test_imagenet_weights(imagenet):
    path, _, expected = imagenet
    body = ResNet38(NARROW).eval()
    load_imagenet_weights(body, path)
    slices = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(body(slices), expected(slices))


def test_imagenet_weights_that_do_not_fit_are_refused(imagenet):
    path, state, _ = imagenet
    with pytest.raises(SAMMixError, match=r"ilsvrc\.pth: .*of another shape: stem\.weight"):
        load_imagenet_weights(ResNet38(2 * NARROW), path)
    del state["bn7.weight"]
    torch.save({**state, "fc8.weight": torch.zeros(1)}, path)
    with pytest.raises(SAMMixError, match=r"1 missing: norm\.weight; 1 unexpected: fc8\..*weight"):
        load_imagenet_weights(ResNet38(NARROW), path)
