"""The liver segment on the real MRML: exact, and without harm to its neighbours."""

from __future__ import annotations

import numpy as np
import slicer

from SAMMixLib.scene.segments import createSegmentation, findLiver, readLiver, writeLiver


def test_a_mask_is_read_back_as_it_was_written(makeVolume):
    volume = makeVolume()
    mask = np.random.default_rng(1).random((6, 8, 10)) < 0.3
    node = createSegmentation(volume)
    writeLiver(mask, volume, node)
    assert np.array_equal(readLiver(node, volume), mask)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, findLiver(node), volume), mask)
