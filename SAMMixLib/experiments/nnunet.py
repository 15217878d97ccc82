"""nnU-Net, through the package ``nnunetv2``: the extra ``sammix[nnunet]``.

nnU-Net plans, preprocesses, augments and trains as it does for everyone, in its 2D configuration; only the length of
the training is ours. It reads its folders from the environment when it is imported, so it trains in a process of its
own (:mod:`SAMMixLib.experiments.nnunet_process`), on data that lie in a temporary folder as long as that runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.baselines_training import BaselinePlan
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.models.base_weights import load_tensors
from SAMMixLib.progress import Progress
from SAMMixLib.training.checkpoint import load_trained_state

DATASET = "Dataset001_Liver"
CONFIGURATION = "2d"
PLANS, DESCRIPTION, WEIGHTS = "plans.json", "dataset.json", "weights.safetensors"
PROGRESS = "sammix progress "  # how the process marks such a line on its standard output
BETWEEN_SLICES = 10.0  # mm; larger than a pixel, so that nnU-Net takes the axial plane for its 2D configuration


def check_installed() -> None:
    """Raise :class:`SAMMixError` where ``nnunetv2`` is missing."""
    if importlib.util.find_spec("nnunetv2") is None:
        raise SAMMixError("nnU-Net is not installed; run pip install 'sammix[nnunet]', or leave this row out")


def train_nnunet(
    plan: BaselinePlan, train: SliceDataset, folder: Path, runtime: Runtime = Runtime()
) -> NNUNetPredictor:
    """Train nnU-Net's 2D configuration until the budget is spent; its last weights count, as is nnU-Net's rule.

    A killed run goes on from its checkpoint; a run that is over is only read. Planning and preprocessing do not count.

    Raises:
        SAMMixError: ``nnunetv2`` is missing, or it failed (its messages are in ``nnunet.log``).
    """
    check_installed()
    if not (folder / WEIGHTS).exists():
        with tempfile.TemporaryDirectory(prefix="sammix-nnunet-") as name:
            work = Path(name)
            export(train.select(train.has_mask | ~train.labels), work / "raw" / DATASET)
            job = {
                "folder": str(folder.resolve()),
                "seed": plan.seed,
                "budget": asdict(plan.budget),
                "slices": len(train),
                "device": str(runtime.device),
                "dtype": runtime.precision,
            }
            (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
            _run_process(work, folder, runtime.progress)
    return NNUNetPredictor(folder, runtime)


def export(dataset: SliceDataset, folder: Path) -> None:
    """Write the slices in nnU-Net's raw format: a patient is a stack ``imagesTr/NAME_0000.nii.gz`` with its mask."""
    import SimpleITK as sitk

    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    stacks = list(_stacks(dataset))
    for n, (own, spacing) in enumerate(stacks):
        for array, file in (
            (dataset.images[own], f"imagesTr/patient{n:04d}_0000.nii.gz"),
            (dataset.masks[own], f"labelsTr/patient{n:04d}.nii.gz"),
        ):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(spacing[::-1])
            sitk.WriteImage(image, folder / file)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": len(stacks),
        "file_ending": ".nii.gz",
    }
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def _stacks(dataset: SliceDataset) -> Iterator[tuple[np.ndarray, tuple[float, float, float]]]:
    """Each patient's positions in order along z, with the spacing (z, row, column) in mm; 1 where it is unknown."""
    for name in dataset.patient_names():
        own = np.flatnonzero(dataset.patients == name)
        own = own[np.argsort(dataset.indices[own], kind="stable")]
        row, column = np.nan_to_num(dataset.spacings[own[0]], nan=1.0).tolist()
        yield own, (BETWEEN_SLICES, row, column)


def _run_process(work: Path, folder: Path, progress: Progress) -> None:
    environment = os.environ | {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_n_proc_DA": "1",  # threads while it plans
    }
    command = [sys.executable, "-m", "SAMMixLib.experiments.nnunet_process", str(work / "job.json")]
    with (folder / "nnunet.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(PROGRESS):
                    progress("train", int(line.removeprefix(PROGRESS)), 1000)
                else:
                    log.write(line)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
            status = process.wait()
    if status:
        raise SAMMixError(f"{folder / 'nnunet.log'}: nnU-Net stopped with exit status {status}; see its last lines")


class NNUNetPredictor:
    """Segments slices with a trained nnU-Net, mirrored averages included as is its default.

    Args:
        folder: the run folder with plans and weights.
    """

    def __init__(self, folder: Path, runtime: Runtime = Runtime()) -> None:
        check_installed()
        self.runtime = runtime
        with contextlib.redirect_stdout(io.StringIO()):  # it talks of environment variables that prediction needs not
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            plans = PlansManager(json.loads((folder / PLANS).read_text(encoding="utf-8")))
            configuration = plans.get_configuration(CONFIGURATION)
            network = get_network_from_plans(
                configuration.network_arch_class_name,
                configuration.network_arch_init_kwargs,
                configuration.network_arch_init_kwargs_req_import,
                input_channels=1,
                output_channels=2,
                deep_supervision=False,
            )
            load_trained_state(network, load_tensors(folder / WEIGHTS), folder / WEIGHTS)
            self.predictor = nnUNetPredictor(device=runtime.device, allow_tqdm=False)
            self.predictor.manual_initialization(
                network.to(runtime.device),
                plans,
                configuration,
                [network.state_dict()],
                description,
                "nnUNetTrainer",
                inference_allowed_mirroring_axes=(0, 1),
            )

    def __call__(self, dataset: SliceDataset) -> SlicePredictions:
        """Masks of each slice, and p(liver): that of the slice's surest pixel."""
        masks, p_liver = np.zeros(dataset.images.shape, bool), np.zeros(len(dataset), np.float32)
        done = 0
        for own, spacing in _stacks(dataset):
            image = dataset.images[own][None].astype(np.float32)
            with contextlib.redirect_stdout(io.StringIO()), self.runtime.autocast():
                found, p = self.predictor.predict_single_npy_array(
                    image, {"spacing": list(spacing)}, save_or_return_probabilities=True
                )
            masks[own], p_liver[own] = found == 1, p[1].max(axis=(1, 2))
            done += len(own)
            self.runtime.progress("segment slices", done, len(dataset))
        return SlicePredictions(masks, p_liver, p_liver >= 0.5, threshold=0.5, keep_threshold=0.5, boxes=[])
