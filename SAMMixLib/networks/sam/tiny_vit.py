"""TinyViT as LiteMedSAM uses it: the image encoder for 256 x 256 slices with a 64 x 64 embedding.

Architecture: Wu et al., "TinyViT", with the two changes of LiteMedSAM (Ma et al.): the patch embedding keeps the full
resolution (1 x 1 convolutions) and the last stage does not halve it. Parameters are named as in the public checkpoint.

Tokens stay channels-last throughout (``[n, h, w, c]``): a linear layer, a depthwise convolution and a window of
attention then all read the same memory without a copy.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from SAMMixLib.networks.fusion import gelu_of
from SAMMixLib.networks.sam.backbone import SplitEncoder

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
STRIDES = (2, 2, 1)  # between the stages
EXPANSION = 4


class ConvNorm(nn.Sequential):
    """A bias-free convolution and its batch norm."""

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    @torch.no_grad()
    def fused(self) -> nn.Conv2d:
        """One convolution with a bias that does the same in evaluation mode."""
        conv, norm = self.c, self.bn
        assert norm.running_mean is not None and norm.running_var is not None  # it tracks them by default
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        fused = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, kernel // 2, groups=conv.groups)
        fused.to(conv.weight)
        fused.weight.copy_(conv.weight * scale[:, None, None, None])
        fused.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        return fused


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of ``[n, c, h, w]``, as in SAM's neck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6)
        return x.permute(0, 3, 1, 2)


class MBConv(nn.Module):
    """Inverted bottleneck of the first stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel=3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = gelu_of(self.conv2, gelu_of(self.conv1, x))
        return F.gelu(self.conv3(hidden) + x)


class PatchMerging(nn.Module):
    """From one stage's width and resolution to the next one's."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, kernel=3, stride=stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(gelu_of(self.conv2, gelu_of(self.conv1, x)))


class Attention(nn.Module):
    """Multi-head attention inside one window, with a learned bias for each distance between two tokens."""

    distance: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        # One bias per head and per |dy|, |dx|, numbered row by row: the order of the checkpoint.
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        distance = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[windows, tokens, channels]`` in and out."""
        windows, count, channels = tokens.shape
        # The checkpoint interleaves q, k and v within each head.
        qkv = self.qkv(self.norm(tokens)).view(windows, count, self.heads, 3, channels // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.distance].to(q.dtype)
        # On a CPU the fused kernel's backward pass costs twice that of plain products, on windows so small.
        plain = torch.is_grad_enabled() and q.device.type == "cpu"
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(attended.transpose(1, 2).reshape(windows, count, channels))


class Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels * EXPANSION)
        self.fc2 = nn.Linear(channels * EXPANSION, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu_of(self.fc1, self.norm(x)))


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution across the window borders, and a perceptron."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, kernel=3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` in channels-last memory, in and out."""
        x = x.permute(0, 2, 3, 1)
        x = (x + self._attend(x)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        w = self.window
        # The public weights were trained with the padding tokens attended to, so they are kept.
        padded = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = padded.shape[1] // w, padded.shape[2] // w
        windows = padded.view(n, rows, w, columns, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        attended = self.attn(windows).view(n, rows, columns, w, w, channels).transpose(2, 3)
        return attended.reshape(n, rows * w, columns * w, channels)[:, :height, :width]


class Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, channels // 2), nn.GELU(), ConvNorm(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        first, _, second = self.seq
        return second(gelu_of(first, x))


class TinyViT(SplitEncoder):
    """LiteMedSAM's image encoder: ``[n, 3, 256, 256]`` in 0..1 to an embedding ``[n, 256, 64, 64]``."""

    def __init__(self, embedding_channels: int = 256) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(WIDTHS[0])
        self.layers = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            if stage == 0:
                blocks: list[nn.Module] = [MBConv(width) for _ in range(depth)]
            else:
                blocks = [TinyViTBlock(width, HEADS[stage], WINDOWS[stage]) for _ in range(depth)]
            last = stage == len(DEPTHS) - 1
            self.layers.append(Stage(blocks, None if last else PatchMerging(width, WIDTHS[stage + 1], STRIDES[stage])))
        self.frozen_stages = 0
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], embedding_channels, 1, bias=False),
            LayerNorm2d(embedding_channels),
            nn.Conv2d(embedding_channels, embedding_channels, 3, padding=1, bias=False),
            LayerNorm2d(embedding_channels),
        )

    def split(self, adapted_blocks: int | None) -> None:
        """Let :meth:`encode_frozen` end before the stages with the last `adapted_blocks` blocks (None: all stages)."""
        self.frozen_stages, blocks = len(DEPTHS), 0
        while self.frozen_stages and (adapted_blocks is None or blocks < adapted_blocks):
            self.frozen_stages -= 1
            blocks += DEPTHS[self.frozen_stages]

    @property
    def features_channels(self) -> int:
        """Channels of what :meth:`encode_frozen` gives."""
        return WIDTHS[min(self.frozen_stages, len(WIDTHS) - 1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.encode_adapted(self.encode_frozen(x))

    def encode_frozen(self, x: Tensor) -> Tensor:
        """The part without adapters: ``[n, 3, 256, 256]`` to features, ``[n, 320, 64, 64]`` before the last stage."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for stage in self.layers[: self.frozen_stages]:
            x = stage(x)
        return x

    def encode_adapted(self, features: Tensor) -> Tensor:
        """The rest: from what :meth:`encode_frozen` gives to an embedding ``[n, 256, 64, 64]``."""
        x = features.contiguous(memory_format=torch.channels_last)
        for stage in self.layers[self.frozen_stages :]:
            x = stage(x)
        return self.neck(x)


def fuse_batch_norm(module: nn.Module) -> None:
    """Fold every :class:`ConvNorm` below `module` into one convolution, for inference only."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, child.fused())
        else:
            fuse_batch_norm(child)
