"""GELUs fused with the layer before them: equal within rounding, and off where the machine cannot."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from SAMMixLib.networks import fusion
from SAMMixLib.networks.fusion import fuse_gelu, gelu_of
from SAMMixLib.networks.sam.tiny_vit import TinyViT, fuse_batch_norm

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def layers_and_inputs():
    images = torch.randn(2, 16, 12, 12).contiguous(memory_format=torch.channels_last)
    return [
        (nn.Linear(16, 24), torch.randn(2, 7, 16)),
        (nn.Conv2d(16, 24, 1), images),
        (nn.Conv2d(16, 16, 3, 2, 1, groups=16), images),
    ]


@needs_onednn
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_fused_layers_are_equal_within_rounding(dtype, tolerance):
    torch.manual_seed(0)
    for layer, x in layers_and_inputs():
        expected = F.gelu(layer(x))
        layer = layer.to(dtype).requires_grad_(False)
        fuse_gelu(layer)
        with torch.inference_mode():
            found = gelu_of(layer, x.to(dtype))
        assert found.dtype == dtype and (found.float() - expected).abs().max() < tolerance


@pytest.mark.slow
@needs_onednn
def test_the_encoder_is_equal_fused_and_every_gelu_but_those_of_sums_is(monkeypatch):
    torch.manual_seed(0)
    encoder = TinyViT().eval().requires_grad_(False)
    fuse_batch_norm(encoder)
    x = torch.rand(1, 3, 256, 256)
    alone = []

    def counted(x):
        alone.append(x.shape)
        return gelu(x)

    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", counted)
    with torch.inference_mode():
        plain, before = encoder(x), len(alone)
        fuse_gelu(encoder)
        fused, after = encoder(x), len(alone) - before
    assert torch.allclose(plain, fused, atol=1e-4) and (before, after) == (23, 2)


def test_without_onednn_nothing_is_fused(monkeypatch):
    class Missing:
        def __getattr__(self, name):
            raise AttributeError(name)

    layer, x = layers_and_inputs()[0]
    monkeypatch.setattr(fusion.torch.ops, "mkldnn", Missing(), raising=False)
    fuse_gelu(layer)
    with torch.inference_mode():  # a fused layer would ask for oneDNN here
        assert torch.equal(gelu_of(layer, x), F.gelu(layer(x)))
