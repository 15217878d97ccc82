"""SAM on `segment-anything`'s ViT against the stock `Sam` and `SamPredictor` with the same random weights."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import nn

from SAMMixLib.errors import SAMMixError
from SAMMixLib.networks.sam import sam_vit
from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.networks.sam.decoding import build_mask_decoder, build_prompt_encoder, image_of_box
from SAMMixLib.networks.sam.sam_vit import ENCODERS, ViT, build_encoder, build_sam

TINY = ViT(width=32, depth=2, heads=2, global_blocks=(1,))
SIZE = 256


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch):
    monkeypatch.setitem(ENCODERS, "tiny", TINY)
    monkeypatch.setitem(ENCODERS, "medsam_tiny", TINY)


def stock_encoder(vit: ViT, image_size: int) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=image_size,
        embed_dim=vit.width,
        depth=vit.depth,
        num_heads=vit.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=vit.global_blocks,
    )


def randomise_positions(module: nn.Module) -> None:
    """They start as zeros, which would hide a mistake."""
    for name, parameter in module.named_parameters():
        if "pos" in name:
            nn.init.normal_(parameter, std=0.3)


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    backbone = build_sam("tiny", SIZE)
    randomise_positions(backbone)
    return backbone


@pytest.fixture
def predictor(backbone) -> SamPredictor:
    sam = Sam(stock_encoder(TINY, SIZE), build_prompt_encoder(SIZE, SIZE // 16), build_mask_decoder()).eval()
    sam.load_state_dict(backbone.state_dict())
    return SamPredictor(sam)


def test_equals_sam_predictor(backbone, predictor):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    boxes = [
        torch.tensor([[30.0, 40.0, 200.0, 180.0]]),
        torch.tensor([[0.0, 0.0, 256.0, 256.0], [100.0, 20.0, 120.0, 60.0], [5.0, 5.0, 9.0, 250.0]]),
        torch.tensor([[64.0, 64.0, 128.0, 128.0]]),
    ]
    slices = torch.from_numpy(images)[:, None] / 255.0
    with torch.no_grad():
        embeddings = backbone.encode(slices)
        masks, iou = backbone.decode(embeddings, torch.cat(boxes), image_of_box(boxes), slice_size=SIZE)

    expected = []
    for k in range(3):
        predictor.set_image(np.repeat(images[k, :, :, None], 3, axis=2))
        torch.testing.assert_close(embeddings[k : k + 1], predictor.features, atol=1e-5, rtol=1e-5)
        _, of_image, logits = predictor.predict_torch(None, None, boxes=boxes[k], multimask_output=True)
        expected.append((logits, of_image))
    torch.testing.assert_close(masks, torch.cat([logits for logits, _ in expected]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(iou, torch.cat([of_image for _, of_image in expected]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("image_size", [224, 256])  # 224: whole windows, no padding
def test_window_attention_is_exact_forward_and_backward(image_size):
    torch.manual_seed(0)
    stock, ours = stock_encoder(TINY, image_size), build_encoder(TINY, image_size)
    randomise_positions(stock)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(2, 3, image_size, image_size)
    for encoder in (stock, ours):
        encoder(x).square().mean().backward()
    torch.testing.assert_close(ours(x), stock(x), atol=1e-5, rtol=1e-5)
    for (name, a), b in zip(ours.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_real_vit_b_at_256_equals_stock():
    torch.manual_seed(0)
    stock, ours = stock_encoder(sam_vit.VIT_B, SIZE), build_encoder(sam_vit.VIT_B, SIZE)
    randomise_positions(stock)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), stock(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit_b", "vit_l", "vit_h"])
def test_keys_and_shapes_are_those_of_the_public_checkpoints(kind):
    with torch.device("meta"):
        expected = {name: weight.shape for name, weight in sam_model_registry[kind]().state_dict().items()}
        backbone = build_sam(f"sam_{kind}", 1024)
    assert {name: weight.shape for name, weight in backbone.state_dict().items()} == expected
    assert (backbone.input_size, backbone.embedding_size, backbone.multimask) == (1024, 64, True)


@pytest.mark.parametrize("image_size", [256, 512])
def test_weights_of_1024_are_interpolated(image_size):
    large = build_sam("tiny", 1024)
    randomise_positions(large)
    weights = large.state_dict()
    small = build_sam("tiny", image_size, weights)
    tokens = image_size // 16
    assert small.embedding_size == tokens

    windowed, whole = small.image_encoder.blocks[0].attn, small.image_encoder.blocks[1].attn
    table = weights["image_encoder.blocks.1.attn.rel_pos_h"]
    assert torch.equal(get_rel_pos(tokens, tokens, whole.rel_pos_h), get_rel_pos(tokens, tokens, table))
    assert torch.equal(windowed.rel_pos_w, weights["image_encoder.blocks.0.attn.rel_pos_w"])
    # Halving twice from a linear table keeps it linear.
    ramp = torch.arange(64.0).view(1, 64, 1, 1).expand(1, 64, 64, TINY.width)
    resized = build_sam("tiny", image_size, {**weights, "image_encoder.pos_embed": ramp}).image_encoder.pos_embed
    step = 64 / tokens
    torch.testing.assert_close(resized[0, :, 0, 0], torch.arange(tokens) * step + (step - 1) / 2)
    assert small.encode(torch.rand(1, 1, 256, 256)).shape == (1, 256, tokens, tokens)


def test_sam_and_medsam_preprocessing(predictor):
    slices = torch.rand(2, 1, SIZE, SIZE)
    expected = predictor.model.preprocess(slices.expand(-1, 3, -1, -1) * 255)
    torch.testing.assert_close(build_sam("tiny", SIZE).preprocess(slices), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(build_sam("medsam_tiny", SIZE).preprocess(slices), slices.expand(-1, 3, -1, -1))


def test_wrong_name_size_and_weights_are_refused(backbone):
    with pytest.raises(SAMMixError, match="sam_vit_x: no such SAM backbone; known are sam_vit_b"):
        build_sam("sam_vit_x")
    with pytest.raises(SAMMixError, match="no image size 300; take one of 256, 512, 1024"):
        build_sam("tiny", 300)
    weights = backbone.state_dict()
    del weights["image_encoder.pos_embed"]
    with pytest.raises(SAMMixError, match=r"tiny: .*1 missing: image_encoder\.pos_embed"):
        build_sam("tiny", SIZE, weights)
