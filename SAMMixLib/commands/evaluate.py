"""``sammix evaluate``: score a model on slices, or mask files against references."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from SAMMixLib.commands.common import add_model_options, add_overwrite_option, check_files, load_segmenter, progress_bar
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.registry import find_model

if TYPE_CHECKING:
    from SAMMixLib.evaluation.evaluate import Evaluation
    from SAMMixLib.progress import Progress


def add_command(commands) -> None:
    parser = commands.add_parser("evaluate", help="score a model, or masks against references", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", metavar="PATH", help="score --model on these slice data sets")
    what.add_argument("--masks", type=Path, metavar="PATH", help="a mask file, or a folder of them")
    parser.add_argument(
        "--references", type=Path, metavar="PATH", help="the reference, or a folder with the same names"
    )
    parser.add_argument("--label", type=int, help="label of the liver in the references (default: all above 0)")
    parser.add_argument("--patients", nargs="+", metavar="PATIENT", help="only these patients of --data")
    parser.add_argument("--hu-range", nargs=2, type=float, default=(-40.0, 160.0), metavar=("LO", "HI"),
                        help="HU of 0 and 255 in uint8 .npz images (default: -40 160)")  # fmt: skip
    parser.add_argument("--middle", type=float, default=1.0, help="share of each scan's slices around its centre")
    parser.add_argument("--prompt", choices=("cam", "oracle"),
                        help="prompt source (default: cam; of mask files: not stated)")  # fmt: skip
    parser.add_argument(
        "--gate",
        action="store_true",
        help="decide along z which slices get a prompt, as for a scan",
    )
    parser.add_argument("--split", default="not stated", help="what these patients are to the model, for the record")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write CSV, JSON and a table here")
    add_overwrite_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("data", "masks", "references", "model", "base_weights"), writes=("output",))


WRITTEN = {  # the files of an evaluation, and what each holds
    "slices.csv": b"patient",
    "volumes.csv": b"patient",
    "evaluation.json": b'"provenance"',
    "evaluation.md": b"|",
}


def run(options: argparse.Namespace) -> dict:
    if options.output:
        inputs = [*(options.data or ()), *filter(None, (options.masks, options.references))]
        check_files(options.output, WRITTEN, options.overwrite, inputs)
    from SAMMixLib.evaluation.tables import as_json, as_table, write_evaluation

    with progress_bar() as progress:
        evaluation = _score_model(options, progress) if options.data else _score_files(options, progress)
    print(as_table(evaluation))
    if options.output:
        write_evaluation(evaluation, options.output)
    everything = json.loads(as_json(evaluation))
    return {key: everything[key] for key in ("provenance", "counts", "summary")}


def _score_model(options: argparse.Namespace, progress: Progress) -> Evaluation:
    import torch

    from SAMMixLib.data.slices import SliceDataset, read_slices
    from SAMMixLib.evaluation.evaluate import evaluate_slices
    from SAMMixLib.inference.slices import SlicePredictor
    from SAMMixLib.models.card import open_bundle

    prompt = options.prompt or "cam"
    segmenter = load_segmenter(options)
    size = segmenter.config.model.size
    parts = [read_slices(path, size, tuple(options.hu_range), middle=options.middle) for path in options.data]
    data = SliceDataset.concatenate(parts)
    if options.patients:
        unknown = sorted(set(options.patients) - set(data.patients))
        if unknown:
            raise SAMMixError(f"patient {unknown[0]} is not in the data; check the names")
        data = data.select([name in options.patients for name in data.patients])
    # The model has its precision; autocast would add another.
    runtime = replace(segmenter.runtime, dtype=torch.float32, progress=progress)
    predict = SlicePredictor(segmenter.model, runtime, segmenter.config.volume if options.gate else None)
    found = predict(data, prompt)
    training = open_bundle(find_model(options.model)).card["training"]
    provenance = {
        "model": segmenter.name,
        "data": ", ".join(Path(path).name for path in options.data),
        "split": options.split,
        "labelled_slices": training.get("labelled_slices", "not stated"),
        "seed": segmenter.config.training.seed,
        "gate": "along z" if options.gate else "each slice alone",
    }
    return evaluate_slices(found, data, prompt, provenance, progress=progress)


def _score_files(options: argparse.Namespace, progress: Progress) -> Evaluation:
    from SAMMixLib.evaluation.evaluate import NOT_STATED, evaluate_volumes

    if options.references is None:
        raise SAMMixError("--masks needs --references")
    provenance = {"data": options.references.name, "split": options.split}
    pairs = _pairs(options.masks, options.references)
    return evaluate_volumes(pairs, provenance, options.prompt or NOT_STATED, label=options.label, progress=progress)


def _pairs(masks: Path, references: Path) -> list[tuple[Path, Path]]:
    if not masks.is_dir():
        return [(masks, references)]
    pairs = [(mask, references / mask.name) for mask in sorted(masks.iterdir()) if not mask.name.startswith(".")]
    missing = [reference for _, reference in pairs if not reference.is_file()]
    if missing or not pairs:
        raise SAMMixError(f"{missing[0] if missing else masks}: no such mask; both folders must hold the same names")
    return pairs
