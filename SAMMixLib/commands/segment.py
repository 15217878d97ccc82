"""``sammix segment CT -o OUT``: the liver of one scan, or what else the model segments."""

from __future__ import annotations

import argparse
from pathlib import Path

from SAMMixLib.commands.common import (
    add_model_options,
    add_overwrite_option,
    check_report,
    load_segmenter,
    print_warnings,
    progress_bar,
)
from SAMMixLib.errors import SAMMixError


def add_command(commands) -> None:
    parser = commands.add_parser("segment", help="segment the liver in a CT", description=__doc__)
    parser.add_argument("ct", type=Path, metavar="CT", help="NIfTI, NRRD, MHA or a DICOM folder")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="mask: .nii.gz, .nii, .nrrd, .seg.nrrd, .mha; .dcm",
    )
    parser.add_argument("--series", help="which DICOM series of the folder: its number or UID")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html with chart and montage here")
    add_overwrite_option(parser)
    parser.add_argument("--viewer", action="store_true", help="with --report: CT and mask in a page")
    parser.add_argument("--measurements", type=Path, metavar="FILE", help="with .dcm: a DICOM report (TID 1500) here")
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("ct", "model", "base_weights"), writes=("output", "report", "measurements"))


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.imaging import dicom_export
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.imaging.writing import check_output, write_mask
    from SAMMixLib.inference.quality import verdict
    from SAMMixLib.process import import_beside
    from SAMMixLib.reports.report import report_figures, write_report

    inputs, as_dicom = [options.ct], options.output.suffix.lower() == ".dcm"
    check_segment_options(options)
    if as_dicom:
        dicom_export.check_sources(options.ct)
        for path in filter(None, (options.output, options.measurements)):
            dicom_export.check_output(path, options.overwrite, inputs)
    else:
        check_output(options.output, options.overwrite, inputs)
    if options.report is not None:
        check_report(options.report, options.overwrite, inputs)
    import_beside("SAMMixLib.inference.segmenter")
    volume = read_volume(options.ct, options.series)
    print_warnings(volume.warnings)
    segmenter = load_segmenter(options)
    with progress_bar() as progress:
        result = segmenter.segment(volume, progress)
    print_warnings(warning for warning in result.warnings if warning not in volume.warnings)
    mask = volume.axial().to_grid(result.mask)
    if as_dicom:
        sources = dicom_export.series_files(options.ct, mask, options.series or "")
        dicom_export.write_segmentation(mask, options.output, sources, segmenter.structure, segmenter.name)
        if options.measurements is not None:
            dicom_export.write_measurements(options.output, options.measurements, sources)
    else:
        write_mask(mask, options.output, options.overwrite, segmenter.structure)
    print(_summary(result, options.output, segmenter.structure.name))
    if result.expected_dice is not None:
        print(f"estimated without a reference: {verdict(result.expected_dice)}")
    if options.report is not None:
        print(f"report: {write_report(result, options.report, volume.name)}")
    if options.viewer and options.report is not None:
        from SAMMixLib.inference.quality import slices_to_review
        from SAMMixLib.reports.viewer import write_viewer

        review = slices_to_review(result.p_liver, result.predicted_iou, result.area_mm2, result.threshold)
        print(f"viewer: {write_viewer(volume, mask, review, options.report)}")
    return report_figures(result, volume.name) | {"output": str(options.output)}


def check_segment_options(options: argparse.Namespace) -> None:
    """Raises SAMMixError where an option needs another one that is not given."""
    if options.viewer and options.report is None:
        raise SAMMixError("--viewer goes with the report; add --report DIR")
    if options.measurements is not None and options.output.suffix.lower() != ".dcm":
        raise SAMMixError("--measurements are a DICOM report of a DICOM SEG; choose an output .dcm")


def _summary(result, output: Path, name: str) -> str:
    if result.slice_range is None:
        return f"no {name} found; an empty mask is in {output}"
    first, last = result.slice_range
    return (
        f"{name}: {result.volume_ml:.0f} ml in slices {first} to {last}, mean {result.mean_hu:.0f} HU; mask: {output}"
    )
