"""LoRA in the image encoder's attention, through peft: ``W x + (alpha / r) B A x`` of Hu et al., rank r = 8."""

from __future__ import annotations

import re

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from SAMMixLib.errors import SAMMixError


class SplitQKV(nn.Module):
    """SAM's fused ``qkv`` layer as three linear layers, equal within rounding, so that peft can adapt q and v alone."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        width = fused.in_features
        for name, weight, bias in zip("qkv", fused.weight.split(width), fused.bias.split(width), strict=True):
            part = nn.Linear(width, width, device=weight.device, dtype=weight.dtype)
            with torch.no_grad():
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def add_lora(encoder: nn.Module, rank: int, targets: str, blocks: int | None = None) -> PeftModel:
    """Freeze `encoder` and put trainable adapters of `rank` into its attention.

    Args:
        encoder: an image encoder whose attention layers are called ``attn.qkv``.
        targets: ``qkv``, or ``q,v`` as in SAMed, which needs SAM's own order of q, k and v in the fused layer.
        blocks: only the last so many blocks; all when None.

    Raises:
        SAMMixError: `targets` is ``q,v`` on an encoder that interleaves q, k and v by head.
    """
    layers = [name for name, _ in encoder.named_modules() if name.endswith("attn.qkv")]
    layers = layers if blocks is None else layers[len(layers) - blocks :]
    if targets == "q,v":
        if hasattr(encoder, "layers"):
            raise SAMMixError("lora_targets 'q,v' needs a SAM ViT backbone; use 'qkv' with lite_medsam")
        for name in layers:
            attention = encoder.get_submodule(name.removesuffix(".qkv"))
            attention.qkv = SplitQKV(attention.qkv)
        layers = [f"{name}.{part}" for name in layers for part in "qv"]
    pattern = "|".join(re.escape(name) for name in layers)
    # alpha = r: the scale stays 1 whatever the rank, so the learning rate keeps its meaning.
    return get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=rank, target_modules=f"({pattern})", bias="none"))


def merge_lora(encoder: nn.Module) -> nn.Module:
    """The plain encoder with the adapters folded into its weights, for inference; equal within rounding."""
    return encoder.merge_and_unload() if isinstance(encoder, PeftModel) else encoder
