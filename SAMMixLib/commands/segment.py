"""``sammix segment CT -o OUT``: the liver of one scan, or what else the model segments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from SAMMixLib.commands.common import add_model_options, load_segmenter, progress_bar


def add_command(commands) -> None:
    parser = commands.add_parser("segment", help="segment the liver in a CT", description=__doc__)
    parser.add_argument("ct", type=Path, metavar="CT", help="NIfTI, NRRD, MHA or a DICOM folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="mask: .nii.gz, .nii, .nrrd, .seg.nrrd or .mha"
    )
    parser.add_argument("--series", help="which DICOM series of the folder: its number or UID")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html with chart and montage here")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.imaging.writing import check_output, write_mask
    from SAMMixLib.reports.report import check_report, report_figures, write_report

    check_output(options.output)
    if options.report is not None:
        check_report(options.report)
    volume = read_volume(options.ct, options.series)
    for warning in volume.warnings:
        print(f"sammix: warning: {warning}", file=sys.stderr)
    segmenter = load_segmenter(options)
    with progress_bar() as progress:
        result = segmenter.segment(volume, progress)
    write_mask(volume.axial().to_grid(result.mask), options.output, structure=segmenter.structure)
    print(_summary(result, options.output, segmenter.structure.name))
    if options.report is not None:
        print(f"report: {write_report(result, options.report, volume.name)}")
    return report_figures(result, volume.name) | {"output": str(options.output)}


def _summary(result, output: Path, name: str) -> str:
    if result.slice_range is None:
        return f"no {name} found; an empty mask is in {output}"
    first, last = result.slice_range
    return (
        f"{name}: {result.volume_ml:.0f} ml in slices {first} to {last}, mean {result.mean_hu:.0f} HU; mask: {output}"
    )
