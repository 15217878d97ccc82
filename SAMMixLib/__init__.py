"""SAM-Mix: liver segmentation in CT from image-level labels and a few masks.

A CT in, its liver out, in Python:

    from SAMMixLib import Segmenter, read_volume, write_mask

    ct = read_volume("scan.nii.gz")
    result = Segmenter.from_bundle("starter").segment(ct)
    write_mask(ct.axial().to_grid(result.mask), "liver.seg.nrrd")

Names are loaded when they are first used: importing this package costs milliseconds, and needs neither torch nor
Slicer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from SAMMixLib.data.phantom import Phantom, make_phantom
    from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
    from SAMMixLib.errors import Cancelled, SAMMixError
    from SAMMixLib.evaluation.evaluate import Evaluation, evaluate_volumes
    from SAMMixLib.imaging.volume import Volume, read_volume
    from SAMMixLib.imaging.writing import write_mask
    from SAMMixLib.inference.device import Runtime
    from SAMMixLib.inference.results import SegmentationResult
    from SAMMixLib.inference.segmenter import Segmenter
    from SAMMixLib.progress import Progress
    from SAMMixLib.structure import LIVER, Structure
    from SAMMixLib.training.finetuning import FineTuning, Tuned, fine_tune

__version__ = "0.1.0"

__all__ = [
    "LIVER",
    "Cancelled",
    "Evaluation",
    "FineTuning",
    "LabelledSlices",
    "Phantom",
    "Progress",
    "Runtime",
    "SAMMixError",
    "SegmentationResult",
    "Segmenter",
    "Structure",
    "TrainingSet",
    "Tuned",
    "Volume",
    "evaluate_volumes",
    "fine_tune",
    "make_phantom",
    "read_volume",
    "write_mask",
]

# Where each public name lives. The names go by strings, so that a room which imports this package imports no other.
_HOMES = {
    "SAMMixLib.data.phantom": ("Phantom", "make_phantom"),
    "SAMMixLib.data.training_set": ("LabelledSlices", "TrainingSet"),
    "SAMMixLib.errors": ("Cancelled", "SAMMixError"),
    "SAMMixLib.evaluation.evaluate": ("Evaluation", "evaluate_volumes"),
    "SAMMixLib.imaging.volume": ("Volume", "read_volume"),
    "SAMMixLib.imaging.writing": ("write_mask",),
    "SAMMixLib.inference.device": ("Runtime",),
    "SAMMixLib.inference.results": ("SegmentationResult",),
    "SAMMixLib.inference.segmenter": ("Segmenter",),
    "SAMMixLib.progress": ("Progress",),
    "SAMMixLib.structure": ("LIVER", "Structure"),
    "SAMMixLib.training.finetuning": ("FineTuning", "Tuned", "fine_tune"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
