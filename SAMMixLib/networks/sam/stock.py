"""The networks of `segment-anything`, without what its package imports besides.

``import segment_anything`` brings its predictors, and with them torchvision, which costs as long as torch itself and
which nothing here needs. Its networks need neither: they are imported as if the package began with them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType

PACKAGE = "segment_anything"
NETWORKS = f"{PACKAGE}.modeling"


@cache
def stock_networks() -> ModuleType:
    """``segment_anything.modeling``. Whoever imports the package itself later gets it whole, with networks anew."""
    if PACKAGE in sys.modules:
        return importlib.import_module(NETWORKS)
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)  # its own __init__ does not run
    try:
        return importlib.import_module(NETWORKS)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
