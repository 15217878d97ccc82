"""What a model segments: a name, a colour, and the SNOMED CT code by which its segment is found again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from SAMMixLib.errors import SAMMixError

ANATOMY = ("123037004", "Anatomical Structure")
ALTERED = ("49755003", "Morphologically Altered Structure")


@dataclass(frozen=True)
class Structure:
    """An organ, or an alteration of one.

    ``color`` is red, green, blue from 0 to 255, ``code`` its code in SNOMED CT with ``code_meaning``, ``category`` code
    and meaning of the category that Slicer lists it under. ``single`` tells that it comes in one piece: then only the
    largest one in a scan is kept.

    Example:
        >>> pancreas = Structure("pancreas", (249, 180, 111), "15776009", "Pancreas")
        >>> Structure.from_dict(pancreas.to_dict(), "card.json") == pancreas
        True
    """

    name: str
    color: tuple[int, int, int]
    code: str
    code_meaning: str
    category: tuple[str, str] = ANATOMY
    single: bool = True

    @property
    def rgb(self) -> tuple[float, float, float]:
        """The colour from 0 to 1."""
        red, green, blue = self.color
        return red / 255, green / 255, blue / 255

    @property
    def terminology(self) -> str:
        """The entry in the form that Slicer keeps in a segment."""
        return (
            "Segmentation category and type - 3D Slicer General Anatomy list"
            f"~SCT^{'^'.join(self.category)}~SCT^{self.code}^{self.code_meaning}~^^"
            "~Anatomic codes - DICOM master list~^^~^^"
        )

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Structure:
        """The structure that :meth:`to_dict` wrote; ``where`` names the file.

        Raises:
            SAMMixError: a field is missing, unknown or not usable in a segment.
        """
        try:
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
            structure = cls(**fields)
            if not structure._is_usable():
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            raise SAMMixError(
                f"{where}: not a structure; it needs name, color [red, green, blue] (0 to 255), code and code_meaning"
            ) from None
        return structure

    def _is_usable(self) -> bool:
        """Whether each field is of its type and fits into a segment's terminology entry."""
        texts = (self.name, self.code, self.code_meaning, *self.category)
        return (
            all(isinstance(text, str) and text.strip() and not set(text) & set("~^|\r\n") for text in texts)
            and isinstance(self.single, bool)
            and len(self.category) == 2
            and len(self.color) == 3
            and all(type(channel) is int and 0 <= channel <= 255 for channel in self.color)
        )


# Colours and codes of Slicer's General Anatomy list.
LIVER = Structure("liver", (221, 130, 101), "10200004", "Liver")
SPLEEN = Structure("spleen", (157, 108, 162), "78961009", "Spleen")
KIDNEY = Structure("kidney", (185, 102, 83), "64033007", "Kidney", single=False)
TUMOUR = Structure("tumour", (144, 238, 144), "4147007", "Mass", ALTERED, single=False)
KNOWN = (LIVER, SPLEEN, KIDNEY, TUMOUR)
SRT = {LIVER.code: "T-62000", SPLEEN.code: "T-C3000", KIDNEY.code: "T-71000"}
"""Older codes, as DICOM and Slicer before 5.0 wrote them."""


def structure_named(name: str) -> Structure:
    """One of the structures known by name.

    Raises:
        SAMMixError: there is none of this name; the message lists those that there are.
    """
    found = next((structure for structure in KNOWN if structure.name == name), None)
    if found is None:
        known = ", ".join(structure.name for structure in KNOWN)
        raise SAMMixError(f"{name}: no structure known by this name; there are {known}")
    return found
