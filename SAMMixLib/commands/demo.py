"""``sammix demo``: make the abdomen phantom, segment its liver, and leave pictures to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

from SAMMixLib.commands.common import (
    add_model_options,
    add_overwrite_option,
    check_report,
    load_segmenter,
    progress_bar,
)
from SAMMixLib.errors import SAMMixError


def add_command(commands) -> None:
    parser = commands.add_parser("demo", help="segment a phantom that the project makes itself", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    add_overwrite_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("model", "base_weights"), writes=("output",))


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.data.phantom import make_phantom
    from SAMMixLib.evaluation.metrics import score_masks
    from SAMMixLib.imaging.masks import mask_on_grid
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.imaging.writing import check_output, write_mask, write_scan
    from SAMMixLib.reports.report import report_figures, write_report

    folder = options.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be made ({error.strerror}); choose another with -o") from None
    ct, liver, found = (folder / name for name in ("phantom_ct.nii.gz", "phantom_liver.nii.gz", "liver.seg.nrrd"))
    for path in (ct, liver, found):
        check_output(path, options.overwrite)
    check_report(folder / "report", options.overwrite, [])
    phantom = make_phantom()
    write_scan(phantom.ct, ct, options.overwrite)
    write_mask(phantom.liver, liver, options.overwrite)
    volume = read_volume(ct)
    segmenter = load_segmenter(options)
    with progress_bar() as progress:
        result = segmenter.segment(volume, progress)
    stack = volume.axial()
    write_mask(stack.to_grid(result.mask), found, options.overwrite, segmenter.structure)
    predicted, truth = (mask_on_grid(mask, volume.image) for mask in (stack.to_grid(result.mask), phantom.liver))
    dice = score_masks(predicted, truth, stack.spacing).dice
    report = write_report(result, folder / "report", "Abdomen phantom")
    print(f"phantom liver: {result.volume_ml:.0f} ml, Dice {dice:.3f} (prompt source cam); look at {report}")
    return report_figures(result, "Abdomen phantom") | {"dice": dice, "prompt": "cam", "report": str(report)}
