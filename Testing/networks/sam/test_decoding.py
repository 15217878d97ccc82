"""One batch of images and boxes must say what the stock decoder says of each image alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.networks.sam.decoding import (
    build_mask_decoder,
    build_prompt_encoder,
    decode_masks,
    encode_prompts,
    image_of_box,
)

SIZE, TOKENS = 64, 8
BOXES = [
    torch.tensor([[4.0, 6.0, 40.0, 50.0], [10.0, 10.0, 20.0, 30.0]]),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 0.0, 64.0, 64.0]]),
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, 256, SIZE // TOKENS, SIZE // TOKENS)
    return Backbone("tiny", encoder, build_prompt_encoder(SIZE, TOKENS), build_mask_decoder()).eval()


@pytest.fixture(scope="module")
def embeddings() -> Tensor:
    return torch.randn(3, 256, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1))


def decode(backbone: Backbone, embeddings: Tensor, boxes: list[Tensor], size: int, dense: Tensor | None = None):
    """All boxes of all slices in one batch."""
    return backbone.decode(embeddings, torch.cat(boxes), image_of_box(boxes), slice_size=size, dense_masks=dense)


def stock(backbone: Backbone, embedding: Tensor, boxes: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The decoder as `segment-anything` calls it: one image, its boxes."""
    sparse, dense = backbone.prompt_encoder(points=None, boxes=boxes, masks=mask)
    return backbone.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=backbone.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=backbone.multimask,
    )


@pytest.mark.parametrize("multimask", [True, False])
def test_batch_equals_stock_one_by_one(backbone, embeddings, multimask, monkeypatch):
    monkeypatch.setattr(backbone, "multimask", multimask)
    with torch.no_grad():
        masks, iou = decode(backbone, embeddings, BOXES, SIZE)
        expected = [
            stock(backbone, embedding, boxes) for embedding, boxes in zip(embeddings, BOXES, strict=True) if len(boxes)
        ]
    assert masks.shape == (3, 3 if multimask else 1, 4 * TOKENS, 4 * TOKENS)
    torch.testing.assert_close(masks, torch.cat([m for m, _ in expected]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(iou, torch.cat([i for _, i in expected]), atol=1e-5, rtol=1e-5)


def test_boxes_are_scaled_from_slice_to_input(backbone, embeddings):
    with torch.no_grad():
        masks, _ = decode(backbone, embeddings, [boxes * 4 for boxes in BOXES], 4 * SIZE)
        expected, _ = decode(backbone, embeddings, BOXES, SIZE)
    torch.testing.assert_close(masks, expected)


def test_dense_masks_reach_the_decoder_in_the_order_of_the_boxes(backbone, embeddings):
    dense = torch.randn(3, 1, 4 * TOKENS, 4 * TOKENS) * 5
    with torch.no_grad():
        masks, _ = decode(backbone, embeddings, BOXES, SIZE, dense)
        of_first, _ = stock(backbone, embeddings[0], BOXES[0], dense[:2])
        of_last, _ = stock(backbone, embeddings[2], BOXES[2], dense[2:])
        without, _ = decode(backbone, embeddings, BOXES, SIZE)
    torch.testing.assert_close(masks, torch.cat([of_first, of_last]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(masks, without, atol=1e-3)


def test_no_box_at_all_gives_no_mask(backbone, embeddings):
    masks, iou = decode(backbone, embeddings, [torch.zeros(0, 4)] * 3, SIZE)
    assert masks.shape == (0, 3, 4 * TOKENS, 4 * TOKENS)
    assert iou.shape == (0, 3)


def test_gradient_flows_to_the_decoder_the_embeddings_and_the_dense_prompt(backbone, embeddings):
    embeddings = embeddings.clone().requires_grad_()
    dense = torch.zeros(3, 1, 4 * TOKENS, 4 * TOKENS, requires_grad=True)
    masks, iou = decode(backbone, embeddings, BOXES, SIZE, dense)
    (masks.square().mean() + iou.square().mean()).backward()

    decoder = dict(backbone.mask_decoder.named_parameters())
    unreached = {name for name, weight in decoder.items() if weight.grad is None}
    assert all(
        name.startswith("output_hypernetworks_mlps.0.") for name in unreached
    )  # the single mask's, not asked for
    assert decoder["transformer.layers.0.self_attn.q_proj.weight"].grad.abs().sum() > 0
    assert embeddings.grad[0].abs().sum() > 0
    assert embeddings.grad[1].abs().sum() == 0  # a slice without a box
    assert dense.grad.abs().sum() > 0
    backbone.zero_grad()


@pytest.mark.parametrize("way", ["cast", "autocast"])
def test_bfloat16_stays_close(embeddings, way):
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, 256, SIZE // TOKENS, SIZE // TOKENS)
    backbone = Backbone("tiny", encoder, build_prompt_encoder(SIZE, TOKENS), build_mask_decoder()).eval()
    dense = torch.randn(3, 1, 4 * TOKENS, 4 * TOKENS)
    with torch.no_grad():
        expected, expected_iou = decode(backbone, embeddings, BOXES, SIZE, dense)
        if way == "cast":
            backbone.cast(torch.bfloat16)
            assert backbone.encode(torch.rand(1, 1, SIZE, SIZE)).dtype == torch.bfloat16
            masks, iou = decode(backbone, embeddings.bfloat16(), BOXES, SIZE, dense)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                masks, iou = decode(backbone, embeddings, BOXES, SIZE, dense)
    assert masks.dtype == iou.dtype == torch.float32
    assert (masks - expected).abs().max() < 0.03 * expected.abs().max()
    assert (iou - expected_iou).abs().max() < 0.03 * expected_iou.abs().max()


def test_prompts_stay_exact_under_autocast(backbone):
    boxes = torch.tensor([[10.25, 11.5, 40.0, 63.0]])
    expected, _ = backbone.prompt_encoder(points=None, boxes=boxes, masks=None)
    with torch.autocast("cpu", torch.bfloat16):
        sparse, _ = encode_prompts(backbone.prompt_encoder, boxes)
    assert torch.equal(sparse, expected)


def test_prompts_may_share_or_change_their_image(backbone, embeddings):
    """`image_of_box` need not be sorted."""
    sparse, dense = encode_prompts(backbone.prompt_encoder, torch.cat(BOXES))
    pe = backbone.prompt_encoder.get_dense_pe()
    owner = torch.tensor([2, 0, 2])
    with torch.no_grad():
        masks, _ = decode_masks(backbone.mask_decoder, embeddings, owner, pe, sparse, dense, multimask=True)
        expected, _ = stock(backbone, embeddings[0], BOXES[0][1:])
    torch.testing.assert_close(masks[1:2], expected, atol=1e-5, rtol=1e-5)


def test_slices_are_resized_and_normalised(backbone):
    slices = torch.rand(2, 1, 2 * SIZE, 2 * SIZE)
    seen = backbone.preprocess(slices)
    assert seen.shape == (2, 3, SIZE, SIZE)
    torch.testing.assert_close(seen[:, :1], nn.functional.avg_pool2d(slices, 2))
    assert torch.equal(seen[:, 0], seen[:, 2])
