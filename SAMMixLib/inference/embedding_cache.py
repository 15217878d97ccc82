"""The embeddings of a scan's slices, kept for the next box on the same slice."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor


class EmbeddingCache:
    """Embeddings ``[256, e, e]`` by slice, in 16 bits on the CPU; beyond `limit` bytes the longest unused ones go."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    def __contains__(self, k: int) -> bool:
        return k in self._kept

    def get(self, k: int) -> Tensor:
        self._kept.move_to_end(k)
        return self._kept[k]

    def put(self, k: int, embedding: Tensor) -> None:
        if k in self._kept or not self.limit:
            return
        kept = embedding.to("cpu", torch.float16 if embedding.dtype == torch.float32 else embedding.dtype, copy=True)
        self._kept[k] = kept
        self.bytes += kept.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes
