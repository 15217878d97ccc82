"""Protocols as data, and cells from training to result on phantoms small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from SAMMixLib.cli import main
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.paper_figures import PAPER
from SAMMixLib.experiments.protocol import FOLDER, SAM_METHODS, read_protocol
from SAMMixLib.experiments.runner import run_cells
from SAMMixLib.experiments.runs import PLAN, RESULT, read_result

DESK = read_protocol("desk")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "lits").mkdir()
    for seed, name in enumerate("abc"):
        phantom = make_phantom(seed, size=(256, 256, 12))
        images, masks = (sitk.GetArrayFromImage(image) for image in (phantom.ct, phantom.liver))
        chosen = np.array([0, 3, 5, 6, 7, 11])
        image = ((np.clip(images[chosen], -40, 160) + 40) / 200 * 255).astype(np.uint8)
        np.savez_compressed(root / "lits" / f"{name}.npz", image=image, mask=masks[chosen], slice=chosen)
    return root


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A protocol of three phantoms: one trains, one validates, one tests."""
    training = replace(DESK.config.training, views=1, batch_size=3, mask_batch_size=1, validation_slices=2)
    config = replace(DESK.config, training=training)
    apart = {"training": {"boxes": "truth", "cam_weight": 0.0}}
    few = {"training": {"labelled_views": 2}}
    content = {
        "name": "tiny",
        "about": "three phantoms",
        "source": {"name": "phantoms", "path": "lits"},
        "split": {"train": ["a"], "validation": ["b"], "test": ["c"]},
        "middle": {"train": 1.0, "test": 1.0},
        "cross_domain": [],
        "budget": {"seconds": 0.5},
        "rows": [
            {"name": "U-Net", "method": "unet", "labels": [None], "seeds": [0]},
            {"name": "SAM-PP", "method": "sam_pp", "labels": [0], "seeds": [0], "changes": apart},
            {"name": "SAM-Mix", "method": "sam_mix", "labels": [2], "seeds": [0], "changes": few},
            {"name": "told", "method": "sam_mix", "labels": [2], "seeds": [0], "changes": {"training": {"steps": 1}}},
        ],
        "config": config.to_dict(),
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(content))
    return path


def test_desk_holds_patients_apart_and_rows_differ_in_what_they_say_only():
    parts = [set(DESK.split[part]) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [15, 4, 6] and len(set.union(*parts)) == 25
    configs = {cell.name: DESK.config_of(cell) for cell in DESK.cells() if cell.row.method in SAM_METHODS}
    mix, pp = configs["SAM-Mix-50"], configs["SAM-PP-50"]
    assert mix.training.labelled_slices == pp.training.labelled_slices == 50
    assert (mix.training.boxes, pp.training.boxes) == ("cam", "truth") and pp.training.cam_weight == 0
    assert replace(mix, model=pp.model, training=pp.training) == pp
    keys = [cell.key for cell in DESK.cells()]
    assert len(set(keys)) == len(keys) and [cell.seed for cell in DESK.cells()] == sorted(c.seed for c in DESK.cells())


def test_ablations_change_one_thing_each_and_see_no_test_patient():
    protocol = read_protocol("ablations")
    assert protocol.split["test"] == protocol.split["validation"] == DESK.split["validation"]
    assert protocol.split["train"] == DESK.split["train"] and protocol.config == DESK.config
    base, *others = [protocol.config_of(cell).to_dict() for cell in protocol.cells() if cell.seed == 0]
    assert all(other != base for other in others)
    assert len(protocol.cells()) == 3 * (1 + len(others))


@pytest.mark.slow
@pytest.mark.parametrize("row", ["u-net-seed-0", "sam-pp-0-seed-0", "sam-mix-2-seed-0", "told-2-seed-0"])
def test_a_cell_from_training_to_result(row, tiny, data_root, tmp_path):
    folder = tmp_path / "runs"
    asked = ["experiment", "--protocol", str(tiny), "--data-root", str(data_root), "-o", str(folder), "--cell", row]
    assert main([*asked, "--dtype", "float32"]) == 0
    (cell,) = (cell for cell in read_protocol(str(tiny)).cells() if cell.key == row)
    result = read_result(folder, cell)
    assert result["row"] == cell.name and result["seed"] == 0
    assert result["labelled_slices"] == (4 if cell.labelled is None else cell.labelled)
    assert set(result["scores"]) == {"phantoms test"}
    prompts = result["scores"]["phantoms test"]
    assert set(prompts) == ({"cam", "oracle"} if cell.row.method in SAM_METHODS else {"cam"})
    assert [entry["slice"] for entry in prompts["cam"]["slices"]] == [0, 3, 5, 6, 7, 11]
    if cell.row.method in SAM_METHODS:
        if cell.row.name == "told":
            assert result["steps"] == 1 and not (folder / row / PLAN).exists()
        else:
            planned = json.loads((folder / row / PLAN).read_text())
            views = planned["seconds_of_labelled_views"]
            assert (views > 0) is (cell.row.name == "SAM-Mix")
            assert result["steps"] == planned["steps"] == max(1, round((0.5 - views) / planned["seconds_a_step"]))
            assert result["processor_seconds"] > views
        assert result["processor_seconds"] > 0
        oracle = prompts["oracle"]["summary"]["liver_slice_dice"]["value"]
        assert oracle > 0.5, "SAM with the reference's box finds a phantom's liver"


@pytest.fixture(scope="module")
def paper_root(tmp_path_factory) -> Path:
    """LiTS and TotalSegmentator folders as they are published, with phantoms for patients."""
    root = tmp_path_factory.mktemp("paper")
    for seed in range(5):
        phantom = make_phantom(seed, size=(64, 64, 10))
        lits = seed < 4
        scan, mask = (
            (f"lits/volume-{seed}.nii", f"lits/segmentation-{seed}.nii")
            if lits
            else (f"totalsegmentator/s{seed:04}/ct.nii.gz", f"totalsegmentator/s{seed:04}/segmentations/liver.nii.gz")
        )
        for name, image in ((scan, phantom.ct), (mask, phantom.liver)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, root / name)
    return root


@pytest.fixture(scope="module")
def small_paper(tmp_path_factory) -> Path:
    """The paper's protocol, small enough for a test: all rows, their methods and changes are its own."""
    paper = json.loads((FOLDER / "paper.json").read_text())
    paper["split"] |= {"train": 1, "validation": 1, "test": 1}
    paper["middle"] = {"train": 0.8, "test": 0.3}
    paper["cross_domain"][0]["patients"] = 1
    paper["budget"] = {"epochs": 1}
    paper["config"]["model"] |= {"backbone": "lite_medsam", "multimask": False, "mask_index": 0, "lora_blocks": 2}
    paper["config"]["model"] |= {"classifier_width": 1 / 16, "lora_targets": "qkv"}
    paper["config"]["training"] |= {"batch_size": 6, "mask_batch_size": 1, "validation_slices": 3}
    for row in paper["rows"]:
        row["labels"] = [count and min(count, 2) for count in row["labels"][-1:]]
        row["seeds"] = [0]
    path = tmp_path_factory.mktemp("protocol") / "paper.json"
    path.write_text(json.dumps(paper))
    return path


def test_paper_splits_and_repeats_as_published():
    paper = read_protocol("paper")
    assert [paper.split[part] for part in ("train", "validation", "test")] == [100, 5, 25]
    assert paper.cross_domain[0].patients == 20 and paper.middle == {"train": 0.3, "test": 0.3}
    training = paper.config.training
    assert paper.budget == {"epochs": 10} and (training.batch_size, training.learning_rate) == (30, 1e-3)
    assert {cell.name for cell in paper.cells()} >= set(PAPER) - {"MultiMix"}
    assert all(row.seeds == (0, 1, 2, 3, 4) for row in paper.rows)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row.name for row in read_protocol("paper").rows])
def test_every_row_of_the_paper_runs_through(row, small_paper, paper_root, tmp_path):
    if row == "nnU-Net":
        pytest.importorskip("nnunetv2")
    asked = ["experiment", "--protocol", str(small_paper), "--data-root", str(paper_root), "-o", str(tmp_path / "runs")]
    assert main([*asked, "--rows", row, "--dtype", "float32"]) == 0
    for cell in (cell for cell in read_protocol(str(small_paper)).cells() if cell.row.name == row):
        scores = read_result(tmp_path / "runs", cell)["scores"]
        assert set(scores) == {"LiTS test", "TotalSegmentator"}
        assert all(len(of_set["cam"]["slices"]) for of_set in scores.values())
    picture = imread(tmp_path / "runs" / "examples.png")
    assert np.ptp(picture[..., :3], axis=2).max() > 0.5, "the green outline of the reference is in it"


def test_what_is_done_is_not_run_again_and_what_fails_is_named(tiny, tmp_path):
    cells = read_protocol(str(tiny)).cells()
    done = tmp_path / cells[0].key
    done.mkdir()
    (done / RESULT).write_text("{}")
    said: list[str] = []
    failed = run_cells(cells, tmp_path, lambda cell: ["false" if cell is cells[1] else "true"], 2, said.append)
    assert failed == [cells[1]]
    assert said[0] == "1 of 4 runs are done" and len(said) == 4
    assert not (tmp_path / cells[0].key / "log.txt").exists()


def test_protocols_that_are_none(tiny, data_root, tmp_path):
    with pytest.raises(SAMMixError, match="no such protocol; take ablations, desk, paper"):
        read_protocol("lunch")
    content = json.loads(tiny.read_text())
    for broken in ({"budget": {"hours": 1}}, {"rows": [{"name": "U-Net"}]}, {"config": {"model": {"omgea": 1}}}):
        tiny.write_text(json.dumps(content | broken))
        with pytest.raises(SAMMixError, match=str(tiny)):
            read_protocol(str(tiny))
    tiny.write_text(json.dumps(content | {"split": {"train": ["a"], "validation": ["b"], "test": ["z"]}}))
    with pytest.raises(SAMMixError, match="patient z of protocol tiny"):
        read_protocol(str(tiny)).read(data_root)
