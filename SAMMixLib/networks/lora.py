"""LoRA in the image encoder's attention, through peft: ``W x + (alpha / r) B A x`` of Hu et al., rank r = 8.

peft is imported where adapters learn; segmenting needs their product alone, and so starts without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from SAMMixLib.errors import SAMMixError
from SAMMixLib.networks.strict import check_fit

if TYPE_CHECKING:
    from peft import PeftModel


class SplitQKV(nn.Module):
    """SAM's fused ``qkv`` layer as three linear layers, equal within rounding, so that peft can adapt q and v alone."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

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
    from peft import LoraConfig, get_peft_model

    pattern = "|".join(re.escape(name) for name in _split_targets(encoder, targets, blocks))
    # alpha = r: the scale stays 1 whatever the rank, so the learning rate keeps its meaning.
    return get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=rank, target_modules=f"({pattern})", bias="none"))


def load_lora(encoder: PeftModel, adapter: dict[str, Tensor], what: str) -> None:
    """Copy a trained `adapter` into the adapters of `encoder`.

    Args:
        what: names the adapter in the error.

    Raises:
        SAMMixError: `adapter` does not fit.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    check_fit(get_peft_model_state_dict(encoder), adapter, what)
    set_peft_model_state_dict(encoder, adapter)


def fold_lora(
    encoder: nn.Module, adapter: dict[str, Tensor], what: str, rank: int, targets: str, blocks: int | None = None
) -> None:
    """Add B A of a trained `adapter` to the weights of a plain `encoder`, for inference; equal within rounding.

    Args:
        adapter: matrices A and B of each layer under peft's names, as :func:`add_lora` with the same `rank`, `targets`
            and `blocks` makes them.
        what: names the adapter in the error.

    Raises:
        SAMMixError: as :func:`add_lora`; or `adapter` does not fit the encoder, which then stays as it is.
    """
    layers = {name: _linear(encoder, name) for name in _split_targets(encoder, targets, blocks)}
    expected = {}
    for name, layer in layers.items():
        expected[_peft_name(name, "A")] = torch.empty(rank, layer.in_features, device="meta")
        expected[_peft_name(name, "B")] = torch.empty(layer.out_features, rank, device="meta")
    check_fit(expected, adapter, what)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight += adapter[_peft_name(name, "B")] @ adapter[_peft_name(name, "A")]


def _linear(encoder: nn.Module, name: str) -> nn.Linear:
    return cast("nn.Linear", encoder.get_submodule(name))


def _peft_name(layer: str, matrix: str) -> str:
    return f"base_model.model.{layer}.lora_{matrix}.weight"


def _split_targets(encoder: nn.Module, targets: str, blocks: int | None) -> list[str]:
    """The names of the layers that adapters go into, after q, k and v were split where `targets` wants it."""
    layers = [name for name, _ in encoder.named_modules() if name.endswith("attn.qkv")]
    layers = layers if blocks is None else layers[len(layers) - blocks :]
    if targets != "q,v":
        return layers
    if hasattr(encoder, "layers"):
        raise SAMMixError("lora_targets 'q,v' needs a SAM ViT backbone; use 'qkv' with lite_medsam")
    for name in layers:
        encoder.get_submodule(name.removesuffix(".qkv")).qkv = SplitQKV(_linear(encoder, name))
    return [f"{name}.{part}" for name in layers for part in "qv"]
