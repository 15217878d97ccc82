"""The networks of `segment-anything` without what its package imports besides."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_segmenting_does_not_import_torchvision_and_others_still_get_the_whole_package():
    script = """
import sys
from SAMMixLib.networks.sam.stock import stock_networks
decoder = stock_networks().MaskDecoder
assert stock_networks().MaskDecoder is decoder
brought = [name for name in ("torchvision", "segment_anything") if name in sys.modules]
import segment_anything
print(brought, segment_anything.modeling.MaskDecoder.__name__, segment_anything.SamPredictor.__name__)
"""
    assert run(script) == "[] MaskDecoder SamPredictor"


@pytest.mark.slow
def test_where_the_package_is_imported_already_its_networks_are_taken():
    script = """
import segment_anything
from SAMMixLib.networks.sam.stock import stock_networks
print(stock_networks() is segment_anything.modeling)
"""
    assert run(script) == "True"
