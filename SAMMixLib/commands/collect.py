"""``sammix collect SCAN --set FOLDER``: slices of a scan, with masks or image-level labels, into a training set."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from SAMMixLib.commands.common import print_warnings
from SAMMixLib.data.training_set import CARD, LabelledSlices, TrainingSet, patient_name
from SAMMixLib.errors import SAMMixError
from SAMMixLib.structure import LIVER, structure_named


def add_command(commands) -> None:
    parser = commands.add_parser("collect", help="put slices of a scan into a training set", description=__doc__)
    parser.add_argument("scan", type=Path, metavar="SCAN", help="NIfTI, NRRD, MHA or a DICOM folder")
    parser.add_argument("--set", type=Path, required=True, metavar="FOLDER", help="the training set, made if need be")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="mask on the scan's grid; its empty slices count as "
                        "without the structure")  # fmt: skip
    parser.add_argument("--mask-value", type=int, metavar="N", help="value in the mask (default: all above 0)")
    parser.add_argument("--slices", type=slice_list, metavar="LIST", help="these only, as 3,7,10-20; without a mask "
                        "they are labelled as showing the structure")  # fmt: skip
    parser.add_argument("--no-structure", type=slice_list, default=[], metavar="LIST", help="label these as without it")
    parser.add_argument("--structure", metavar="NAME", help="of a new set: liver, spleen, kidney or tumour")
    parser.add_argument("--series", help="which DICOM series of the folder: its number or UID")
    parser.set_defaults(run=run, reads=("scan", "mask"), writes=("set",))


def slice_list(text: str) -> list[int]:
    """The slices that ``3,7,10-20`` names."""
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise argparse.ArgumentTypeError(f"{part!r} is no slice or range of slices; write 3,7,10-20")
        found |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sorted(found)


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.imaging.masks import axial_mask
    from SAMMixLib.imaging.volume import read_volume

    if options.mask is None and options.slices is None and not options.no_structure:
        raise SAMMixError("nothing to collect; give --mask, --slices or --no-structure")
    structure = structure_named(options.structure) if options.structure else None
    opened = TrainingSet.open(options.set) if (options.set / CARD).exists() else None
    if opened and structure and opened.structure != structure:
        raise SAMMixError(f"{options.set}: is a training set of {opened.structure.name}; choose another --set")

    volume = read_volume(options.scan, options.series)
    print_warnings(volume.warnings)
    stack = volume.axial()
    mask = (
        None
        if options.mask is None
        else axial_mask(options.mask, volume, options.mask_value, opened.structure if opened else structure or LIVER)
    )
    total, without = len(stack.array), options.no_structure
    chosen = options.slices
    if chosen is None:
        chosen = [k for k in range(total) if k not in without] if mask is not None else []
    for k in [*chosen, *without]:
        if k >= total:
            raise SAMMixError(f"{options.scan}: slice {k}: the scan has the slices 0 to {total - 1}")
        if k in without and (k in chosen or (mask is not None and mask[k].any())):
            raise SAMMixError(f"slice {k} is said to be without the structure, and with it; decide on one")

    training_set = opened or TrainingSet.create(options.set, structure or LIVER)
    patient = patient_name(volume.name, stack.array, stack.spacing)
    provenance = {"scan": volume.path.name, "slices": total, "how": "sammix collect"}
    for ks, label, masks in ((chosen, True, mask), (without, False, None)):
        if ks:
            own = None if masks is None else masks[ks]
            labels = [label] * len(ks) if own is None else own.any((1, 2)).tolist()
            images = stack.array[ks]
            training_set.add(LabelledSlices(patient, ks, images, stack.spacing[1:], labels, own, provenance))
    entries = [entry for entry in training_set.entries() if entry.active]
    shown = [entry.has_mask for entry in entries if entry.label]
    print(f"{patient}: {len(chosen) + len(without)} slices into {options.set}")
    print(f"it holds {len(entries)}, {len(shown)} with {training_set.structure.name}, {sum(shown)} of these with mask")
    return {"set": str(options.set), "patient": patient, "added": len(chosen) + len(without), "slices": len(entries)}
