"""SAM's prompt encoder and mask decoder for a batch of several images with several boxes each.

The stock ``MaskDecoder.forward`` takes one image at a time: it repeats the embeddings once per prompt. Here every box
names its image, so one call decodes them all. The parts and their weights stay those of `segment-anything`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from SAMMixLib.networks.sam.stock import stock_networks

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder, PromptEncoder

EMBEDDING_CHANNELS = 256


def build_prompt_encoder(input_size: int, embedding_size: int) -> PromptEncoder:
    """SAM's prompt encoder for images of `input_size` pixels and embeddings of `embedding_size` tokens on each side."""
    return stock_networks().PromptEncoder(
        embed_dim=EMBEDDING_CHANNELS,
        image_embedding_size=(embedding_size, embedding_size),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )


def build_mask_decoder() -> MaskDecoder:
    """SAM's mask decoder: one mask for an unambiguous prompt and three for an ambiguous one."""
    stock = stock_networks()
    transformer = stock.TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_CHANNELS, num_heads=8, mlp_dim=2048)
    return stock.MaskDecoder(transformer_dim=EMBEDDING_CHANNELS, transformer=transformer, num_multimask_outputs=3)


def image_of_box(boxes: Sequence[Tensor], device: torch.device | str = "cpu") -> Tensor:
    """Which of n images each box belongs to: int64 ``[sum b_i]`` of n tensors ``[b_i, 4]``."""
    counts = torch.tensor([len(of_image) for of_image in boxes])
    return torch.repeat_interleave(torch.arange(len(boxes)), counts).to(device)


def encode_prompts(
    prompt_encoder: PromptEncoder, boxes: Tensor, dense_masks: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Embed one box, and with `dense_masks` one mask, per prompt.

    Args:
        boxes: ``[b, 4]`` xyxy in pixels of the encoder's input image.
        dense_masks: ``[b, 1, 4e, 4e]`` logits, or None for SAM's learned "no mask" embedding.

    Returns:
        Sparse embeddings ``[b, 2, 256]`` and dense embeddings ``[b, 256, e, e]``, float32.
    """
    # The Fourier features of a coordinate need more digits than 16-bit floats have.
    with torch.autocast(boxes.device.type, enabled=False):
        return prompt_encoder(
            points=None, boxes=boxes.float(), masks=None if dense_masks is None else dense_masks.float()
        )


def decode_masks(
    mask_decoder: MaskDecoder,
    embeddings: Tensor,
    image_of_box: Tensor,
    image_pe: Tensor,
    sparse: Tensor,
    dense: Tensor,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    """Predict the masks of `b` prompts on `n` images in one pass.

    Args:
        embeddings: image embeddings ``[n, 256, e, e]``.
        image_of_box: ``[b]`` int64, the image that each prompt belongs to.
        image_pe: ``[1, 256, e, e]``, the prompt encoder's ``get_dense_pe()``.
        sparse, dense: ``[b, t, 256]`` and ``[b, 256, e, e]`` from :func:`encode_prompts`.
        multimask: three masks (decoder tokens 1 to 3) rather than the single one (token 0).

    Returns:
        Mask logits ``[b, m, 4e, 4e]`` and predicted IoU ``[b, m]`` with m = 3 or 1, in the decoder's precision.
    """
    dtype = mask_decoder.iou_token.weight.dtype
    chosen = slice(1, None) if multimask else slice(0, 1)

    own_tokens = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
    tokens = torch.cat([own_tokens.expand(len(sparse), -1, -1), sparse.to(dtype)], dim=1)
    image = embeddings.to(dtype).index_select(0, image_of_box) + dense.to(dtype)
    tokens, pixels = mask_decoder.transformer(image, image_pe.to(dtype), tokens)

    iou_token, mask_tokens = tokens[:, 0], tokens[:, 1 : 1 + mask_decoder.num_mask_tokens]
    pixels = mask_decoder.output_upscaling(pixels.transpose(1, 2).reshape(image.shape))
    mlps = mask_decoder.output_hypernetworks_mlps[chosen]
    filters = torch.stack([mlp(token) for mlp, token in zip(mlps, mask_tokens[:, chosen].unbind(1), strict=True)], 1)
    masks = torch.einsum("bmc,bchw->bmhw", filters, pixels)
    return masks, mask_decoder.iou_prediction_head(iou_token)[:, chosen]
