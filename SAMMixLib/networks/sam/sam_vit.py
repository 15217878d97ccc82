"""SAM with a plain ViT as image encoder: SAM ViT-B, ViT-L, ViT-H and MedSAM, through `segment-anything`.

The networks are made for 1024 x 1024 images. At 256 or 512 their position embeddings are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor, nn

from SAMMixLib.errors import SAMMixError
from SAMMixLib.networks.sam.backbone import Backbone, SplitEncoder
from SAMMixLib.networks.sam.decoding import EMBEDDING_CHANNELS, build_mask_decoder, build_prompt_encoder
from SAMMixLib.networks.strict import load_strictly

IMAGE_SIZES = (256, 512, 1024)
PATCH_SIZE = 16
WINDOW_SIZE = 14

# Of colours in 0..1. SAM's own code scales to 0..255 first, which comes to the same.
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
MEDSAM_MEAN = (0.0, 0.0, 0.0)
MEDSAM_STD = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ViT:
    """The size of an image encoder; `global_blocks` attend to the whole image, the others within windows."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]


VIT_B = ViT(768, 12, 12, (2, 5, 8, 11))
VIT_L = ViT(1024, 24, 16, (5, 11, 17, 23))
VIT_H = ViT(1280, 32, 16, (7, 15, 23, 31))
ENCODERS = {"sam_vit_b": VIT_B, "sam_vit_l": VIT_L, "sam_vit_h": VIT_H, "medsam_vit_b": VIT_B}


class WindowAttention(nn.Module):
    """Stock `Attention` with its windows, equal to rounding, without projecting the padding.

    SAM pads the token grid with zeros to whole windows *before* it projects to q, k and v, and attends to the padding.
    All padding tokens project to the same vector, so here one of them is projected and the grid is padded *after*
    that: at 16 x 16 tokens and windows of 14, 256 tokens pass the linear layers instead of 784.
    """

    def __init__(self, stock: Attention, window: int) -> None:
        """`window`: its side in tokens; 0 attends to the whole grid."""
        super().__init__()
        self.heads = stock.num_heads
        self.window = window
        self.qkv = stock.qkv
        self.proj = stock.proj
        self.rel_pos_h = stock.rel_pos_h
        self.rel_pos_w = stock.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """``[n, h, w, c]`` in and out."""
        n, height, width, channels = x.shape
        side = self.window or height
        rows, columns = -(-height // side), -(-width // side)

        qkv = self.qkv(x)
        if (rows * side, columns * side) != (height, width):
            padded = self.qkv(x.new_zeros(channels)).repeat(n, rows * side, columns * side, 1)
            padded[:, :height, :width] = qkv
            qkv = padded
        qkv = qkv.view(n, rows, side, columns, side, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3)  # each [windows, heads, side, side, c / heads]

        bias = self._position_bias(q).flatten(4).flatten(2, 3)
        q, k, v = (tensor.flatten(2, 3) for tensor in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))

        attended = attended.view(n, rows, columns, self.heads, side, side, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj(attended.reshape(n, rows * side, columns * side, channels)[:, :height, :width])

    def _position_bias(self, q: Tensor) -> Tensor:
        """SAM's decomposed relative positions: ``[..., side, side, c]`` to ``[..., side, side, side, side]``."""
        side = q.shape[-2]
        by_row = torch.einsum("...hwc,hkc->...hwk", q, get_rel_pos(side, side, self.rel_pos_h))
        by_column = torch.einsum("...hwc,wkc->...hwk", q, get_rel_pos(side, side, self.rel_pos_w))
        return by_row[..., :, None] + by_column[..., None, :]


class ImageEncoder(ImageEncoderViT, SplitEncoder):
    """SAM's image encoder in two parts: blocks without adapters, and the rest. Keys as in SAM's."""

    frozen_blocks = 0

    def split(self, adapted_blocks: int | None) -> None:
        """Let :meth:`encode_frozen` end where the last `adapted_blocks` blocks start (None: all blocks)."""
        self.frozen_blocks = 0 if adapted_blocks is None else max(0, len(self.blocks) - adapted_blocks)

    @property
    def features_channels(self) -> int:
        """Channels of what :meth:`encode_frozen` gives."""
        assert self.pos_embed is not None
        return self.pos_embed.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.encode_adapted(self.encode_frozen(x))

    def encode_frozen(self, x: Tensor) -> Tensor:
        """The part without adapters: ``[n, 3, image_size, image_size]`` to features ``[n, width, e, e]``."""
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks[: self.frozen_blocks]:
            x = block(x)
        return x.permute(0, 3, 1, 2)

    def encode_adapted(self, features: Tensor) -> Tensor:
        """The rest: from what :meth:`encode_frozen` gives to an embedding ``[n, 256, e, e]``."""
        x = features.permute(0, 2, 3, 1)
        for block in self.blocks[self.frozen_blocks :]:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


def build_encoder(vit: ViT, image_size: int) -> ImageEncoder:
    """The encoder for ``[n, 3, image_size, image_size]``, with :class:`WindowAttention`."""
    encoder = ImageEncoder(
        img_size=image_size,
        patch_size=PATCH_SIZE,
        embed_dim=vit.width,
        depth=vit.depth,
        num_heads=vit.heads,
        out_chans=EMBEDDING_CHANNELS,
        norm_layer=cast("type[nn.Module]", partial(nn.LayerNorm, eps=1e-6)),
        use_rel_pos=True,
        window_size=WINDOW_SIZE,
        global_attn_indexes=vit.global_blocks,
    )
    for block in cast("Iterable[Block]", encoder.blocks):
        block.add_module("attn", WindowAttention(block.attn, block.window_size))
        block.window_size = 0  # the attention does the windows
    return encoder


def build_sam(name: str, image_size: int = 1024, weights: dict[str, Tensor] | None = None) -> Backbone:
    """A SAM for images of `image_size` x `image_size`, in evaluation mode.

    Args:
        name: one of :data:`ENCODERS`.
        image_size: one of :data:`IMAGE_SIZES`; the embedding has ``image_size / 16`` tokens a side.
        weights: a public state dict, usually of 1024; random when None.

    Raises:
        SAMMixError: unknown name or size, or weights of another network.
    """
    if name not in ENCODERS:
        raise SAMMixError(f"{name}: no such SAM backbone; known are {', '.join(ENCODERS)}")
    if image_size not in IMAGE_SIZES:
        raise SAMMixError(f"{name}: no image size {image_size}; take one of {', '.join(map(str, IMAGE_SIZES))}")
    mean, std = (MEDSAM_MEAN, MEDSAM_STD) if name.startswith("medsam") else (SAM_MEAN, SAM_STD)
    backbone = Backbone(
        name=name,
        image_encoder=build_encoder(ENCODERS[name], image_size),
        prompt_encoder=build_prompt_encoder(image_size, image_size // PATCH_SIZE),
        mask_decoder=build_mask_decoder(),
        mean=mean,
        std=std,
    )
    if weights is not None:
        load_strictly(backbone, resize_positions(weights, backbone), name)
    return backbone.eval()


def resize_positions(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """`weights` with their position tables interpolated to the image size of `backbone`; the rest as it is.

    Absolute positions ``[1, e, e, c]`` are interpolated bilinearly, the relative ones ``[2 e - 1, c]`` of the global
    blocks linearly, which is SAM's own rule for a table of another length.
    """
    resized = dict(weights)
    for key, own in backbone.image_encoder.state_dict(prefix="image_encoder.").items():
        table = weights.get(key)
        if table is None or table.shape == own.shape:
            continue
        if key.endswith("pos_embed"):
            grid = F.interpolate(table.permute(0, 3, 1, 2), size=own.shape[1:3], mode="bilinear")
            resized[key] = grid.permute(0, 2, 3, 1)
        elif key.endswith(("rel_pos_h", "rel_pos_w")):
            resized[key] = F.interpolate(table.T[None], size=len(own), mode="linear")[0].T
    return resized
