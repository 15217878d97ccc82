"""``sammix bench``: time every stage, in two precisions, and against other ways, in one run."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from SAMMixLib.commands.common import add_model_options, positive, progress_bar
from SAMMixLib.models.registry import find_model

FILE, CHART = "bench.json", "bench.png"


def add_command(commands) -> None:
    parser = commands.add_parser("bench", help="time every stage on this machine", description=__doc__)
    parser.add_argument("ct", nargs="?", type=Path, metavar="CT", help="a scan (default: the phantom)")
    parser.add_argument(
        "--slices", type=positive, metavar="N", help="resample the scan along z to so many slices; 300 is the benchmark"
    )
    parser.add_argument(
        "--naive-slices",
        type=positive,
        default=6,
        metavar="N",
        help="slices that the naive way is measured on (default: 6)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=f"write {FILE} and a chart, {CHART}")
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("ct", "model", "base_weights"), writes=("output",))


def run(options: argparse.Namespace) -> dict:
    import SimpleITK as sitk

    from SAMMixLib.data.phantom import make_phantom
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.inference.bench import in_slices, peak_memory_gb, time_segmentation
    from SAMMixLib.inference.peers import time_apart
    from SAMMixLib.inference.segmenter import Segmenter

    bundle = find_model(options.model)
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        ct = options.ct
        if ct is None:
            ct = Path(folder) / "phantom.nii.gz"
            sitk.WriteImage(make_phantom().ct, str(ct), True)
        read_volume(ct)  # bad input is refused before anything is timed
        if options.slices is not None:
            ct = in_slices(ct, options.slices, Path(folder) / "resampled.nii.gz")
        runs, peaks = [], []
        for dtype in dict.fromkeys((options.dtype, "float32")):
            segmenter = Segmenter.from_bundle(
                bundle, options.device, dtype, batch_size=options.batch_size, base_weights=options.base_weights
            )
            runs.append(time_segmentation(segmenter, ct, Path(folder) / "mask.nrrd", progress))
            print(_table(runs[-1]))
            peaks.append(peak_memory_gb())
        first = runs[0]
        base = [options.base_weights] if options.base_weights else []
        naive = time_apart("naive", ct, first["device"], bundle, options.naive_slices, *base)
        fast = time_apart("fast", ct, first["device"], first["dtype"])
    seconds = first["seconds"]["total"]
    others = {"naive": naive * first["slices"], "totalsegmentator_fast_sized": fast}
    faster = {name: value / seconds for name, value in others.items()}
    print(
        f"naive way (float32, one slice at a time, SAM on every slice): {naive:.2f} s a slice, measured on "
        f"{options.naive_slices} slices; SAMMix is {faster['naive']:.1f} times as fast in this run"
    )
    print(
        f"network of the size of TotalSegmentator --fast, {first['dtype']}, forward alone: {fast:.1f} s for this scan; "
        f"SAMMix, from file to file, is {faster['totalsegmentator_fast_sized']:.1f} times as fast"
    )
    print(f"peak memory of the first run: {peaks[0]} GB")
    result = {
        "runs": runs,
        "naive_seconds_per_slice": naive,
        "other_ways_seconds": {name: round(value, 2) for name, value in others.items()},
        "times_faster": {name: round(value, 2) for name, value in faster.items()},
        "peak_memory_gb": peaks[0],
    }
    if options.output is not None:
        _write(result, options.output)
    return result


def _table(run: dict) -> str:
    stages = "  ".join(f"{stage} {value:.2f}" for stage, value in run["seconds"].items())
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in run["share_of_peak"].items())
    looked = run["slices_of_stage"]
    return (
        f"{run['device']}, {run['dtype']}: {run['slices']} slices, {looked['classify']} classified, "
        f"{run['slices_with_prompt']} prompted, {looked['encode']} encoded, {run['slices_per_second']} slices/s\n"
        f"  seconds: {stages}\n"
        f"  share of {run['matmul_peak_gflops']} GFLOP/s: {shares or 'none'}"
    )


def _write(result: dict, folder: Path) -> None:
    from SAMMixLib.reports.bench_chart import bench_chart
    from SAMMixLib.reports.report import write_together

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    write_together(folder, {FILE: text.encode(), CHART: bench_chart(result)})
    print(f"wrote {folder / FILE} and {folder / CHART}")
