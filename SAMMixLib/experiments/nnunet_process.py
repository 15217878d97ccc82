"""The process in which nnU-Net trains: ``python -m SAMMixLib.experiments.nnunet_process JOB``.

The job lies beside the folder ``raw``; the run folder receives plans, data set description, checkpoints and weights.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

from SAMMixLib.files import atomic
from SAMMixLib.process import tune_process

CPU_MEMORY_TARGET = 2  # GB instead of nnU-Net's 8: a quarter of the batch, four times the steps of a short training


def main(job_file: Path) -> None:
    """Plan, preprocess and train."""
    from safetensors.torch import save_file

    from SAMMixLib.experiments.nnunet import CONFIGURATION, DATASET, DESCRIPTION, PLANS, WEIGHTS
    from SAMMixLib.training.checkpoint import trained_state

    job = json.loads(job_file.read_text(encoding="utf-8"))
    work, folder = job_file.parent, Path(job["folder"])
    prepared = prepare(job["device"])
    shutil.copy(work / "preprocessed" / DATASET / prepared, folder / PLANS)
    shutil.copy(work / "raw" / DATASET / DESCRIPTION, folder / DESCRIPTION)
    plans, description = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (PLANS, DESCRIPTION))
    network = train(job, plans | {"continue_training": False}, CONFIGURATION, description)
    with atomic(folder / WEIGHTS) as beside:
        save_file(trained_state(network), beside)  # each tensor once: nnU-Net's modules name theirs several times


def prepare(device: str) -> str:
    """Fingerprint, plans and preprocessed data; returns the name of the plans' file."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from SAMMixLib.experiments.nnunet import CONFIGURATION

    extract_fingerprint_dataset(1, num_processes=1, show_progress_bar=False)
    target = CPU_MEMORY_TARGET if device == "cpu" else None
    plans, name = plan_experiment_dataset(1, gpu_memory_target_in_gb=target)
    preprocessor = PlansManager(plans).get_configuration(CONFIGURATION).preprocessor_class(verbose=False)
    preprocessor.show_progress_bar = False
    preprocessor.run(1, CONFIGURATION, name, num_processes=1)
    return f"{name}.json"


def train(job: dict, plans: dict, configuration: str, description: dict):
    """nnU-Net's batches and steps until the budget is spent; its polynomial decay follows the share that is spent."""
    import numpy as np
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from SAMMixLib.errors import SAMMixError
    from SAMMixLib.experiments.nnunet import PROGRESS
    from SAMMixLib.training.checkpoint import load_trained_state, read_checkpoint, trained_state, write_checkpoint
    from SAMMixLib.training.loaders import step_seed
    from SAMMixLib.training.loop import CHECKPOINT_SECONDS, REPORT_STEPS

    def draw_by(step: int) -> None:
        seed = step_seed(job["seed"], step, 0)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    folder, budget, device = Path(job["folder"]), job["budget"], torch.device(job["device"])
    draw_by(0)
    # Augmentation in this process: it counts, and is drawn by the seed.
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
    trainer = nnUNetTrainer(plans, configuration, fold="all", dataset_json=description, device=device)
    trainer.on_train_start()
    state = {"step": 0, "seconds": 0.0, "history": []}
    content = read_checkpoint(folder, device)
    if content is not None:
        if content["seed"] != job["seed"]:
            raise SAMMixError(f"{folder}: the checkpoint has seed {content['seed']}; take a new folder")
        load_trained_state(trainer.network, content["model"], folder)
        trainer.optimizer.load_state_dict(content["optimiser"])
        state = content["run"]

    steps = None if budget["epochs"] is None else budget["epochs"] * -(-job["slices"] // trainer.batch_size)
    dtype, saved = getattr(torch, job["dtype"]), time.monotonic()
    trainer.network.train()
    while (spent := state["step"] / steps if steps else state["seconds"] / budget["seconds"]) < 1:
        print(f"{PROGRESS}{int(spent * 1000)}", flush=True)
        started = time.process_time()
        draw_by(state["step"] + 1)
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - spent) ** 0.9
        batch = next(trainer.dataloader_train)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = float(trainer.train_step(batch)["loss"])
        state["seconds"] += time.process_time() - started
        state["step"] += 1
        if state["step"] % REPORT_STEPS == 0:
            seconds = round(state["seconds"], 2)
            state["history"].append({"step": state["step"], "seconds": seconds, "segmentation_loss": loss})
            lines = "".join(json.dumps(line) + "\n" for line in state["history"])
            (folder / "log.jsonl").write_text(lines, encoding="utf-8")
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            model, optimiser = trained_state(trainer.network), trainer.optimizer.state_dict()
            write_checkpoint({"model": model, "optimiser": optimiser, "run": state, "seed": job["seed"]}, folder)
            saved = time.monotonic()
    trainer.set_deep_supervision_enabled(False)
    return trainer.network


if __name__ == "__main__":
    tune_process()
    main(Path(sys.argv[1]))
