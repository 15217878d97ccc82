"""``sammix suggest CT...``: which slices to correct next, over all scans given."""

from __future__ import annotations

import argparse
from pathlib import Path

from SAMMixLib.commands.common import add_model_options, load_segmenter, positive, progress_bar


def add_command(commands) -> None:
    parser = commands.add_parser("suggest", help="say which slices to correct next", description=__doc__)
    parser.add_argument("ct", type=Path, nargs="+", metavar="CT", help="NIfTI, NRRD, MHA or DICOM folders")
    parser.add_argument("--set", type=Path, metavar="SET", help="a training set: its masks need no correction")
    parser.add_argument("--count", type=positive, default=5, metavar="N", help="slices to name (default: 5)")
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("ct", "set", "model", "base_weights"), writes=())


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.data.training_set import TrainingSet, patient_name
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.inference.active_learning import candidates, facility_location, joined, reason
    from SAMMixLib.inference.scan import Scan

    entries = TrainingSet.open(options.set).entries() if options.set else []
    masks = {entry.key for entry in entries if entry.has_mask}
    segmenter = load_segmenter(options)
    found, known, where = [], [], []
    with progress_bar() as progress:
        for path in options.ct:
            scan = Scan(segmenter, read_volume(path))
            scan.segment(progress)
            name = patient_name(scan.volume.name, scan.stack.array, scan.stack.spacing)
            labelled = [k for k in range(len(scan.slices)) if (name, k) in masks]
            found.append(candidates(scan, labelled))
            known += [k in labelled for k in found[-1].slices]
            where += [path] * len(found[-1].slices)
    every = joined(found)
    rows = [
        {"ct": str(where[n]), "slice": int(every.slices[n]), "reason": reason(every, n)}
        for n in facility_location(every, known, options.count)
    ]
    for row in rows:
        print(f"{row['ct']}: slice {row['slice']}, {row['reason']}")
    if not rows:
        print("nothing to suggest: the model found nothing in these scans, or every slice has a mask")
    return {"slices": rows}
