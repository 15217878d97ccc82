"""A layer and its GELU in one pass over memory, for inference on a CPU: oneDNN applies it to what it just computed.

The encoder of LiteMedSAM spends a third of its time on GELUs of large activations that are read and written once more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gelu_of(layer: nn.Module, x: Tensor) -> Tensor:
    """``gelu(layer(x))``; in one pass, equal within rounding, where :func:`fuse_gelu` allowed it, without gradients."""
    if torch.is_grad_enabled() or not getattr(layer, "fused_gelu", False):
        return F.gelu(layer(x))
    if isinstance(layer, nn.Linear):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "none")
    form = layer.padding, layer.stride, layer.dilation, layer.groups
    return torch.ops.mkldnn._convolution_pointwise(x, layer.weight, layer.bias, *form, "gelu", [], "none")


def fuse_gelu(module: nn.Module) -> None:
    """Let :func:`gelu_of` fuse the layers below `module`, which must be on the CPU and not learn any more.

    Nothing changes where this build of torch has no oneDNN, or this CPU no arithmetic in the layers' precision.
    """
    layers = [layer for layer in module.modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    like = next(layers[0].parameters())
    try:
        for probe in (nn.Linear(8, 8), nn.Conv2d(8, 8, 1)):
            _allow(probe.to(like))
            with torch.inference_mode():
                gelu_of(probe, like.new_zeros(1, 8, 8, 8))
    except (AttributeError, RuntimeError):
        return
    for layer in layers:
        _allow(layer)


def _allow(layer: nn.Module) -> None:
    layer.__dict__["fused_gelu"] = True  # a plain attribute: no parameter, no part of the state dict
