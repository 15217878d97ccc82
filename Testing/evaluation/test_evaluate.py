"""Evaluations: which slices count where, intervals over patients, and the files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation import tables as evaluation_files
from SAMMixLib.evaluation.bootstrap import mean, roc_auc
from SAMMixLib.evaluation.evaluate import NO_REFERENCE, evaluate_slices, evaluate_volumes
from SAMMixLib.evaluation.tables import as_table, write_evaluation
from SAMMixLib.inference.slices import SlicePredictions

PROVENANCE = {"data": "squares", "split": "test", "labelled_slices": 5, "seed": 7}


@pytest.fixture
def squares() -> tuple[SlicePredictions, SliceDataset]:
    """Predictions and data set of 8 slices: 2 hits, a miss, a false alarm, 3 without liver, 1 without reference."""
    square = np.zeros((32, 32), bool)
    square[8:16, 8:16] = True
    none = np.zeros_like(square)
    references = np.array([square, square, square, none, none, none, none, none])
    masks = np.array([square, np.roll(square, 2, 0), none, square, none, none, none, square])
    labels = references.any((1, 2)) | (np.arange(8) == 7)
    dataset = SliceDataset(
        images=np.zeros((8, 32, 32), np.int16),
        labels=labels,
        masks=references.astype(np.uint8),
        has_mask=np.arange(8) != 7,
        patients=np.array(list("aabbbaab")),
        indices=np.arange(8),
        spacings=np.full((8, 2), 4, np.float32),
    )
    p_liver = np.array([0.9, 0.8, 0.2, 0.6, 0.1, 0.3, 0.2, 0.7])
    return SlicePredictions(masks, p_liver, p_liver >= 0.5, 0.5, 0.5, boxes=[]), dataset


def test_liver_is_seen_where_the_model_prompts(squares):
    found, dataset = squares
    strict = replace(found, prompted=found.p_liver >= 0.75, threshold=0.75, keep_threshold=0.75)
    summary = evaluate_slices(strict, dataset, "cam", PROVENANCE).summary
    assert (summary["sensitivity"].value, summary["specificity"].value) == (2 / 4, 1)


def test_what_counts_where(squares):
    found = evaluate_slices(*squares, "cam", PROVENANCE)
    assert [row["case"] for row in found.slices] == (
        ["scored"] * 2 + ["missed", "false alarm"] + ["both empty"] * 3 + [NO_REFERENCE]
    )
    summary = {name: estimate.value for name, estimate in found.summary.items()}
    assert summary["slice_dice"] == pytest.approx((1 + 0.75 + 0 + 0) / 4)
    assert summary["liver_slice_dice"] == pytest.approx((1 + 0.75 + 0) / 3)
    assert summary["slice_hd_mm"] == pytest.approx((0 + 2 * 4) / 2)
    assert summary["slice_hd_px"] == pytest.approx((0 + 2 * 256 / 32) / 2)
    assert summary["sensitivity"] == 3 / 4
    assert summary["specificity"] == 3 / 4
    assert summary["masked_without_liver"] == 1 / 4
    assert summary["auc"] == pytest.approx(13.5 / 16)
    assert found.counts["slices"] == 8 and found.counts["slices missed"] == found.counts["slices false alarm"] == 1
    volumes = {row["patient"]: row for row in found.volumes}
    assert volumes["a"]["dice"] == pytest.approx(2 * 112 / 256) and volumes["b"]["dice"] == 0
    assert volumes["a"]["slices"] == 4 and volumes["b"]["slices"] == 3
    assert summary["volume_error_percent"] == 0


def test_without_spacing_there_are_pixels_only(squares):
    found, dataset = squares
    dataset.spacings[:] = np.nan
    summary = evaluate_slices(found, dataset, "cam", PROVENANCE).summary
    assert "slice_hd_mm" not in summary
    assert summary["slice_hd_px"].value == pytest.approx(8)


def test_the_prompt_source_is_stated(squares):
    found = evaluate_slices(*squares, "oracle", PROVENANCE)
    assert found.provenance == PROVENANCE | {"prompt": "oracle"}
    assert "masked_without_liver" not in found.summary  # without liver there is no box to prompt with
    assert evaluate_slices(*squares, "cam", {}).provenance["data"] == "not stated"
    with pytest.raises(SAMMixError, match="cam or oracle"):
        evaluate_slices(*squares, "box", PROVENANCE)


def test_one_prediction_for_each_slice(squares):
    found, dataset = squares
    with pytest.raises(SAMMixError, match="one for each"):
        evaluate_slices(replace(found, masks=found.masks[1:]), dataset, "cam", PROVENANCE)


def test_intervals_are_those_of_drawing_patients():
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 50)
    level = random.normal(0.9, 0.1, 30)
    values = level[patients] + random.normal(0, 0.01, 1500)
    estimate = mean(values, patients, seed=1)
    assert estimate == mean(values, patients, seed=1)
    assert estimate.low < estimate.value < estimate.high
    width = 2 * 1.96 * level.std() / np.sqrt(30)  # slices drawn alone would give a width 7 times smaller
    assert estimate.high - estimate.low == pytest.approx(width, rel=0.1)
    assert (estimate.n, estimate.patients) == (1500, 30)
    assert np.isnan(mean(values[:50], patients[:50], seed=1).low)


def test_auc_counts_pairs_and_ties():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 8, 60), random.random(60) < 0.4
    above = scores[labels][:, None] - scores[~labels][None]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    estimate = roc_auc(scores, labels, np.arange(60) % 6, seed=0)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < expected < estimate.high
    assert np.isnan(roc_auc(scores, np.ones(60), np.arange(60), seed=0).value)


@pytest.fixture
def mask_files(tmp_path):
    """Prediction and reference of one grid, the prediction stored in another axis order."""
    liver = np.zeros((6, 32, 32), np.uint8)
    liver[1:4, 8:24, 8:24] = 5
    reference = sitk.GetImageFromArray(liver)
    reference.SetSpacing((0.5, 0.5, 2))
    prediction = sitk.DICOMOrient(sitk.GetImageFromArray((np.roll(liver, 1, 2) > 0).astype(np.uint8)), "LPS")
    prediction.SetSpacing((0.5, 0.5, 2))
    files = tmp_path / "p.nii.gz", tmp_path / "r.nrrd"
    sitk.WriteImage(sitk.DICOMOrient(prediction, "PIR"), str(files[0]))
    liver[5] = 1  # another organ
    other = sitk.GetImageFromArray(liver)
    other.CopyInformation(reference)
    sitk.WriteImage(other, str(files[1]))
    return files


def test_volumes(mask_files):
    found = evaluate_volumes([mask_files], PROVENANCE, label=5)
    (volume,) = found.volumes
    assert volume["patient"] == "p" and volume["dice"] == pytest.approx(15 / 16)
    assert volume["hd_mm"] == pytest.approx(0.5) and volume["hd_px"] == pytest.approx(0.5 / (16 / 256))
    assert volume["volume_ml"] == pytest.approx(3 * 256 * 0.5 / 1000) == volume["reference_ml"]
    assert [row["case"] for row in found.slices] == ["both empty"] + ["scored"] * 3 + ["both empty"] * 2
    assert found.summary["sensitivity"].value == 1 and "auc" not in found.summary


def test_volumes_of_different_grids_are_refused_by_name(mask_files, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8)), str(tmp_path / "q.nii"))
    with pytest.raises(SAMMixError, match=r"p\.nii\.gz against .*q\.nii"):
        evaluate_volumes([(mask_files[0], tmp_path / "q.nii")], PROVENANCE)


def test_files(squares, tmp_path):
    found = evaluate_slices(*squares, "cam", PROVENANCE)
    write_evaluation(found, tmp_path / "new")
    names = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert names == ["evaluation.json", "evaluation.md", "slices.csv", "volumes.csv"]

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    read = json.loads((tmp_path / "new" / "evaluation.json").read_text(), parse_constant=refuse)
    assert read["provenance"] == PROVENANCE | {"prompt": "cam"}
    assert read["slices"][2]["hd_mm"] is None and read["summary"]["slice_dice"]["value"] == pytest.approx(0.4375)
    with (tmp_path / "new" / "slices.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 8 and rows[2]["dice"] == "0.0" and rows[2]["hd_mm"] == "" and rows[7]["dice"] == ""
    assert all(row["prompt"] == "cam" and row["labelled_slices"] == "5" for row in rows)


def test_table(squares):
    table = as_table(evaluate_slices(*squares, "cam", PROVENANCE))
    for words in ("data: squares", "prompt: cam", "labelled slices: 5", "seed: 7", "slices missed 1"):
        assert words in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1 and set(lines[1]) == {"|", "-"}
    assert any("Dice, slices with liver " in line and "0.583" in line for line in lines)


def test_every_figure_of_a_summary_has_its_line(squares):
    assert set(evaluate_slices(*squares, "cam", PROVENANCE).summary) <= set(evaluation_files.MEANINGS)


def test_nothing_half_written_remains(squares, tmp_path, monkeypatch):
    found = evaluate_slices(*squares, "cam", PROVENANCE)

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("SAMMixLib.files.os.replace", fail)
    with pytest.raises(SAMMixError, match="No space left"):
        write_evaluation(found, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_golden_pair_of_chaos(shared_data):
    folder = shared_data / "volumes"
    pair = folder / "chaos_ct3_example_segmentation.nii.gz", folder / "chaos_ct3_liver.nii.gz"
    found = evaluate_volumes([pair], PROVENANCE)
    assert round(found.volumes[0]["dice"], 3) == 0.978
    assert found.volumes[0]["reference_ml"] == pytest.approx(1417, abs=1)
    assert found.counts["slices"] == 78
