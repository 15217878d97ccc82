"""The cache of embeddings stays within its bytes."""

from __future__ import annotations

import torch

from SAMMixLib.inference.embedding_cache import EmbeddingCache


def test_the_longest_unused_embedding_goes_first():
    cache = EmbeddingCache(limit=3 * 2 * 64)
    for k in range(3):
        cache.put(k, torch.full((4, 4, 4), float(k)))
    assert cache.get(0).dtype == torch.float16 and cache.bytes == cache.limit
    cache.put(3, torch.ones(4, 4, 4, dtype=torch.bfloat16))
    assert [k in cache for k in range(4)] == [True, False, True, True] and cache.bytes == cache.limit
    assert cache.get(3).dtype == torch.bfloat16 and (cache.get(2) == 2).all()


def test_a_cache_of_nothing_keeps_nothing():
    cache = EmbeddingCache(limit=0)
    cache.put(1, torch.ones(1, 2, 2))
    assert 1 not in cache and cache.bytes == 0


def test_what_is_kept_is_not_a_view_of_the_batch():
    cache, batch = EmbeddingCache(limit=1 << 20), torch.ones(8, 2, 2, 2, dtype=torch.bfloat16)
    cache.put(0, batch[0])
    batch.zero_()
    assert (cache.get(0) == 1).all() and cache.get(0).untyped_storage().nbytes() == 16
