"""``sammix bench``: time every stage, in two precisions, and against the naive way, in one run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from SAMMixLib.commands.common import add_model_options, positive, progress_bar
from SAMMixLib.models.registry import find_model


def add_command(commands) -> None:
    parser = commands.add_parser("bench", help="time every stage on this machine", description=__doc__)
    parser.add_argument("ct", nargs="?", type=Path, metavar="CT", help="a scan (default: the phantom)")
    parser.add_argument(
        "--naive-slices",
        type=positive,
        default=6,
        metavar="N",
        help="slices that the naive way is measured on (default: 6)",
    )
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("ct", "model", "base_weights"), writes=())


def run(options: argparse.Namespace) -> dict:
    import SimpleITK as sitk

    from SAMMixLib.data.phantom import make_phantom
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.inference.bench import peak_memory_gb, time_naive_apart, time_segmentation
    from SAMMixLib.inference.segmenter import Segmenter

    bundle = find_model(options.model)
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        ct = options.ct
        if ct is None:
            ct = Path(folder) / "phantom.nii.gz"
            sitk.WriteImage(make_phantom().ct, str(ct), True)
        read_volume(ct)  # bad input is refused before anything is timed
        runs, peaks = [], []
        for dtype in dict.fromkeys((options.dtype, "float32")):
            segmenter = Segmenter.from_bundle(
                bundle, options.device, dtype, batch_size=options.batch_size, base_weights=options.base_weights
            )
            runs.append(time_segmentation(segmenter, ct, Path(folder) / "mask.nrrd", progress))
            print(_table(runs[-1]))
            peaks.append(peak_memory_gb())
        naive = time_naive_apart(bundle, ct, runs[0]["device"], options.naive_slices, options.base_weights)
    ratio = naive * runs[0]["slices"] / runs[0]["seconds"]["total"]
    print(f"naive way (float32, one slice at a time, SAM on every slice): {naive:.2f} s a slice, measured on "
          f"{options.naive_slices} slices; SAMMix is {ratio:.1f} times as fast in this run")  # fmt: skip
    print(f"peak memory of the first run: {peaks[0]} GB")
    times = {"naive_seconds_per_slice": naive, "times_faster_than_naive": ratio}
    return {"runs": runs, **times, "peak_memory_gb": peaks[0]}


def _table(run: dict) -> str:
    stages = "  ".join(f"{stage} {value:.2f}" for stage, value in run["seconds"].items())
    share = run["encoder_share_of_peak"]
    return (
        f"{run['device']}, {run['dtype']}: {run['slices']} slices, {run['slices_with_prompt']} prompted, "
        f"{run['slices_encoded']} encoded, "
        f"{run['slices_per_second']} slices/s; encoder at {share or 0:.0%} of {run['matmul_peak_gflops']} GFLOP/s\n"
        f"  seconds: {stages}"
    )
