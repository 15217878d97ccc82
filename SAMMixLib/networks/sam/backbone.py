"""The one interface to every SAM: encode slices once, then decode boxes on their embeddings as often as needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMMixLib.networks.sam.decoding import decode_masks, encode_prompts

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder, PromptEncoder


class SplitEncoder(nn.Module):
    """An image encoder in two parts: what training never changes, and what adapters change."""

    def split(self, adapted_blocks: int | None) -> None:
        """Let :meth:`encode_frozen` end before the last `adapted_blocks` blocks (None: before all)."""
        raise NotImplementedError

    @property
    def features_channels(self) -> int:
        """Channels of what :meth:`encode_frozen` gives."""
        raise NotImplementedError

    def encode_frozen(self, x: Tensor) -> Tensor:
        """The part without adapters: ``[n, 3, input_size, input_size]`` to features ``[n, c, h, w]``."""
        raise NotImplementedError

    def encode_adapted(self, features: Tensor) -> Tensor:
        """The rest: from what :meth:`encode_frozen` gives to an embedding ``[n, 256, e, e]``."""
        raise NotImplementedError


class Backbone(nn.Module):
    """An image encoder with SAM's prompt encoder and mask decoder.

    The state dict has the keys of a SAM checkpoint: ``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``.

    Args:
        name: the backbone's name in a config, such as ``"sam_vit_b"``.
        image_encoder: maps ``[n, 3, input_size, input_size]`` to ``[n, 256, e, e]``.
        mean, std: of each colour channel, in 0..1; the encoder sees ``(slice - mean) / std``.
        multimask: decode three masks per box rather than one.

    Attributes:
        input_size: side of the encoder's input in pixels.
        embedding_size: side of the embedding in tokens, e.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        image_encoder: SplitEncoder,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        multimask: bool = True,
    ) -> None:
        super().__init__()
        self.name = name
        self.input_size: int = prompt_encoder.input_image_size[0]
        self.embedding_size: int = prompt_encoder.image_embedding_size[0]
        self.multimask = multimask
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def cast(self, dtype: torch.dtype) -> Backbone:
        """Convert the encoder and the decoder to `dtype`, in place.

        The prompt encoder stays in float32, which its coordinates need; so use this and not ``.to(torch.bfloat16)``.
        """
        self.image_encoder.to(dtype)
        self.mask_decoder.to(dtype)
        return self

    def preprocess(self, slices: Tensor) -> Tensor:
        """Grey slices ``[n, 1, S, S]`` in 0..1 to the encoder's input ``[n, 3, input_size, input_size]``."""
        if slices.shape[-1] != self.input_size:
            slices = F.interpolate(slices, size=(self.input_size, self.input_size), mode="bilinear")
        return (slices - self.mean) / self.std

    def encode(self, slices: Tensor) -> Tensor:
        """Slices ``[n, 1, S, S]`` in 0..1 to embeddings ``[n, 256, e, e]`` in the encoder's precision."""
        return self.image_encoder(self._input(slices))

    def encode_frozen(self, slices: Tensor) -> Tensor:
        """Slices ``[n, 1, S, S]`` in 0..1 to features ``[n, c, h, w]``, by the part that training never changes."""
        return self.image_encoder.encode_frozen(self._input(slices))

    def encode_adapted(self, features: Tensor) -> Tensor:
        """Features of :meth:`encode_frozen` to embeddings ``[n, 256, e, e]``, through the part with the adapters."""
        return self.image_encoder.encode_adapted(features.to(next(self.image_encoder.parameters()).dtype))

    def _input(self, slices: Tensor) -> Tensor:
        return self.preprocess(slices).to(next(self.image_encoder.parameters()).dtype)

    def decode(
        self,
        embeddings: Tensor,
        boxes: Tensor,
        image_of_box: Tensor,
        *,
        slice_size: int,
        dense_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Segment what each box holds, all boxes of all slices in one batch.

        A box is x0, y0, x1, y1 at pixel *edges*, as SAM's boxes are: a region of the pixels i0 to i1, both included,
        has the edges i0 and i1 + 1.

        Args:
            embeddings: ``[n, 256, e, e]`` from :meth:`encode`.
            boxes: ``[b, 4]``, in pixels of the slice of `slice_size` x `slice_size`.
            image_of_box: ``[b]`` int64, the slice that each box belongs to, see
                :func:`~SAMMixLib.networks.sam.decoding.image_of_box`.
            slice_size: S of the slices that were encoded.
            dense_masks: ``[b, 1, 4e, 4e]`` logits, SAM's dense mask prompt.

        Returns:
            Mask logits ``[b, m, 4e, 4e]`` and predicted IoU ``[b, m]``, float32; m = 3 with `multimask`, else 1.
        """
        edges = boxes * (self.input_size / slice_size)
        sparse, dense = encode_prompts(self.prompt_encoder, edges, dense_masks)
        image_pe = self.prompt_encoder.get_dense_pe()
        masks, iou = decode_masks(self.mask_decoder, embeddings, image_of_box, image_pe, sparse, dense, self.multimask)
        return masks.float(), iou.float()
