"""Whole volumes with the starter model, the gate along z, and the grid that the mask comes back on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from SAMMixLib.config import PRESETS
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.errors import Cancelled, SAMMixError
from SAMMixLib.evaluation.metrics import score_masks
from SAMMixLib.imaging.volume import Volume, read_volume
from SAMMixLib.imaging.writing import write_mask
from SAMMixLib.inference.device import Runtime, choose_device, choose_dtype
from SAMMixLib.inference.postprocessing import hysteresis_threshold
from SAMMixLib.inference.quality import SIGNS, QualityModel
from SAMMixLib.inference.scan import Scan, smooth_boxes
from SAMMixLib.inference.segmenter import Segmenter, prepare
from SAMMixLib.models.build import build_model
from SAMMixLib.models.bundle import load_bundle, save_bundle
from SAMMixLib.models.card import open_bundle
from SAMMixLib.paths import starter_folder
from SAMMixLib.structure import KIDNEY


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_bundle(starter_folder(), device="cpu")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=3, size=(256, 256, 20))


@pytest.mark.slow
def test_the_starter_segments_the_phantom(segmenter, phantom, tmp_path):
    sitk.WriteImage(phantom.ct, str(tmp_path / "ct.nii.gz"))
    volume = read_volume(tmp_path / "ct.nii.gz")
    seen = []
    result = segmenter.segment(volume, lambda stage, done, total: seen.append((stage, done, total)))
    truth = sitk.GetArrayFromImage(phantom.liver)
    assert score_masks(result.mask, truth, result.spacing).dice >= 0.90
    with_box = np.array([len(boxes) > 0 for boxes in result.boxes])
    assert not result.mask[~with_box].any() and not result.cams[~with_box].any()
    assert result.slice_range is not None and result.volume_ml == pytest.approx(truth.sum() * 0.0337, rel=0.15)
    assert (result.predicted_iou[with_box] > 0).all()
    assert ("classify slices", 20, 20) in seen and seen[-1][1] == seen[-1][2]


@pytest.mark.slow
def test_a_model_with_an_estimate_tells_the_dice_to_expect(segmenter, phantom, tmp_path):
    sitk.WriteImage(phantom.ct[:, :, 8:11], str(tmp_path / "ct.nrrd"))
    volume = read_volume(tmp_path / "ct.nrrd")
    assert segmenter.segment(volume).expected_dice is None
    none = (0.0,) * len(SIGNS)
    result = replace(segmenter, quality=QualityModel(none, (1.0,) * len(SIGNS), none, bias=np.log(9))).segment(volume)
    masked = result.slice_masks.any(axis=(1, 2))
    assert masked.any() and np.allclose(result.expected_dice[masked], 0.9)
    assert np.isnan(result.expected_dice[~masked]).all()


@pytest.mark.slow
def test_the_gate_of_the_config_decides_on_a_scan(segmenter, phantom, tmp_path):
    """Of five slices the third is unsure: the interval keeps it, the thresholds do not."""
    sitk.WriteImage(phantom.ct[:, :, 6:11], str(tmp_path / "ct.nrrd"))
    volume = read_volume(tmp_path / "ct.nrrd")
    for gate, expected in (("hysteresis", [True, True, False, True, True]), ("interval", [True] * 5)):
        settings = replace(segmenter.config.volume, gate=gate)
        scan = Scan(replace(segmenter, config=replace(segmenter.config, volume=settings)), volume)
        scan._classify = lambda ks, progress, scan=scan: scan.p_liver.__setitem__(..., [0.99, 0.99, 0.2, 0.99, 0.99])
        scan.cams[:, 100:140, 60:120] = 1
        result = scan.segment()
        assert (result.gate, result.prompted.tolist()) == (gate, expected)


def thin_scan(segmenter, millimetres: float, **settings) -> tuple[Scan, dict[str, list[int]]]:
    """A scan of 80 slices with liver in 20 to 59, and which slices each network is shown."""
    image = sitk.GetImageFromArray(np.zeros((80, 64, 64), np.int16))
    image.SetSpacing((4.0, 4.0, millimetres))
    config = replace(segmenter.config, volume=replace(segmenter.config.volume, **settings))
    scan = Scan(replace(segmenter, config=config), Volume(image, Path("thin.nrrd")))
    shown: dict[str, list[int]] = {"classifier": [], "SAM": []}

    def classify(ks, progress):
        shown["classifier"] += ks
        scan.p_liver[ks] = [0.98 if 20 <= k < 60 else 0.02 for k in ks]
        scan.cams[ks, 100:140, 60:120] = 1
        scan.classified[ks] = True

    def look_at(ks, masks, features, *, progress):
        shown["SAM"] += ks
        masks.logits[ks, 90:150, 50:130], masks.predicted_iou[ks] = 5, 0.9
        masks.logits[[k for k in ks if k > 50], 120:150] = -5  # the last ones hold half of it
        progress("segment slices", len(ks), len(ks))

    scan._classify, scan._look_at = classify, look_at
    return scan, shown


def test_of_thin_slices_the_networks_see_a_part_and_the_result_says_which(segmenter):
    scan, shown = thin_scan(segmenter, 1.0)
    seen = []
    result = scan.segment(lambda stage, done, total: seen.append((done, total)))
    assert np.flatnonzero(result.prompted).tolist() == list(range(20, 60))
    assert np.flatnonzero(result.classified).tolist() == sorted(shown["classifier"]) and result.classified.sum() < 32
    assert shown["SAM"] == [20, 24, 32, 40, 48, 56, 59, 52] and result.classified[shown["SAM"]].all()
    assert seen == [(7, 7), (8, 8)]
    assert np.array_equal(result.mask.any(axis=(1, 2)), result.prompted)
    assert not np.isnan(result.p_liver).any() and result.p_liver[21] == pytest.approx(0.98)
    assert result.boxes[21] == result.boxes[20] and result.cams[21].max() == 1
    areas = result.area_mm2[48:53]
    assert (np.diff(areas) <= 0).all() and areas[0] > areas[2] > areas[4]


def test_slices_as_thick_as_the_gap_are_all_shown_to_both_networks(segmenter):
    scan, shown = thin_scan(segmenter, 4.0)
    assert scan.segment().classified.all()
    assert shown == {"classifier": list(range(80)), "SAM": list(range(20, 60))}


def test_what_is_spared_in_thin_slices_can_be_switched_off(segmenter):
    scan, shown = thin_scan(segmenter, 1.0, classify_between=True, widest_gap_mm=0.0)
    assert scan.segment().classified.all()
    assert shown == {"classifier": list(range(80)), "SAM": [*range(20, 60, 4), 59]}
    scan, shown = thin_scan(segmenter, 1.0, gap_mm=0.0)
    scan.segment()
    assert shown == {"classifier": list(range(80)), "SAM": list(range(20, 60))}


@pytest.mark.slow
def test_a_correction_looks_at_a_slice_that_the_classifier_skipped(segmenter):
    scan, shown = thin_scan(segmenter, 1.0)
    scan.segment()
    before = len(shown["classifier"])
    assert not scan.classified[21]
    scan.resegment({20: None, 21: None})
    assert shown["classifier"][before:] == [21] and scan.classified[21]


def test_the_estimate_lies_in_the_card(segmenter, tmp_path):
    fitted = QualityModel(*((n / 8,) * len(SIGNS) for n in (1, 2, 3)), bias=0.5)
    assert "quality" not in open_bundle(starter_folder()).card
    save_bundle(load_bundle(starter_folder()), segmenter.config, {"quality": fitted.to_dict()}, tmp_path / "judged")
    assert Segmenter.from_bundle(tmp_path / "judged", device="cpu").quality == fitted


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(code=st.sampled_from(["RAI", "PIL", "SPR", "LSA"]), angle=st.floats(-0.2, 0.2))
def test_any_orientation_gives_the_same_liver_on_the_input_grid(segmenter, phantom, tmp_path, code, angle):
    rotation = sitk.Euler3DTransform()
    rotation.SetRotation(angle, 0.0, angle / 2)
    turned = sitk.Image(phantom.ct[:, :, 8:11])
    turned.SetDirection(rotation.GetMatrix())
    plain, stored = tmp_path / "plain.nrrd", tmp_path / "stored.nrrd"
    sitk.WriteImage(turned, str(plain))
    sitk.WriteImage(sitk.DICOMOrient(turned, code), str(stored))
    masks = []
    for path in (plain, stored):
        volume = read_volume(path)
        grid = volume.axial().to_grid(segmenter.segment(volume).mask)
        write_mask(grid, tmp_path / "mask.nrrd")
        read = sitk.ReadImage(str(tmp_path / "mask.nrrd"))
        assert read.GetSize() == volume.image.GetSize()
        np.testing.assert_allclose(read.GetDirection(), volume.image.GetDirection(), atol=1e-12)
        np.testing.assert_allclose(read.GetOrigin(), volume.image.GetOrigin(), atol=1e-9)
        masks.append(sitk.GetArrayFromImage(sitk.DICOMOrient(read, "LPS")))
    assert masks[0].any() and np.array_equal(*masks)


@pytest.mark.slow
def test_a_head_on_the_encoder_shares_its_pass(phantom, tmp_path):
    starter = PRESETS["starter"]
    config = replace(
        starter,
        model=replace(starter.model, classifier="encoder_head", cam_difference=True),
        volume=replace(starter.volume, gate_high=0.0, gate_low=0.0, gap_mm=0.0),
    )
    torch.manual_seed(0)
    model = prepare(build_model(config.model), Runtime())
    sitk.WriteImage(phantom.ct[:, :, 8:11], str(tmp_path / "ct.nrrd"))
    encoded = []
    encode_frozen = model.backbone.encode_frozen
    model.backbone.encode_frozen = lambda slices: encoded.append(len(slices)) or encode_frozen(slices)
    model.backbone.encode = None
    whole = Segmenter(model, config, "head", Runtime(batch_size=2))
    result = whole.segment(read_volume(tmp_path / "ct.nrrd"))
    assert encoded == [2, 1] and sum(map(bool, result.boxes)) > 0
    slices = torch.from_numpy(result.slices).float()[:, None] / 255
    del model.backbone.encode
    alone = model(slices, features=encode_frozen(slices))
    np.testing.assert_allclose(result.p_liver, alone.logit.sigmoid(), atol=0.01)  # the slices are rounded to 8 bits


@pytest.mark.slow
def test_cancel_stops_between_batches(segmenter, phantom, tmp_path):
    def stop(stage, done, total):
        raise Cancelled

    sitk.WriteImage(phantom.ct, str(tmp_path / "ct.mha"))
    with pytest.raises(Cancelled):
        segmenter.segment(read_volume(tmp_path / "ct.mha"), stop)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_then_says_so(segmenter, phantom, tmp_path, monkeypatch, error):
    sizes = []

    def full(slices, embeddings):
        sizes.append(len(slices))
        raise error

    sitk.WriteImage(phantom.ct, str(tmp_path / "ct.mha"))
    monkeypatch.setattr(segmenter.model, "classify", full)
    small = replace(segmenter, runtime=Runtime(batch_size=4))
    with pytest.raises(SAMMixError, match="not enough memory"):
        small.segment(read_volume(tmp_path / "ct.mha"))
    assert sizes == [4, 2, 1]


def test_air_holds_no_liver(segmenter, tmp_path):
    array = np.full((3, 64, 64), -1000, np.int16)
    array[:, 20:40, 20:40] = 0
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "air.nrrd"))
    result = segmenter.segment(read_volume(tmp_path / "air.nrrd"))
    assert not result.mask.any() and result.slice_range is None and np.isnan(result.mean_hu) and result.volume_ml == 0


def test_gate_keeps_runs_that_reach_the_high_threshold():
    p = np.array([0.1, 0.4, 0.6, 0.4, 0.1, 0.4, 0.45, 0.1])
    assert hysteresis_threshold(p, 0.5, 0.3).tolist() == [False, True, True, True, False, False, False, False]
    assert hysteresis_threshold(p, 0.5, 0.5).tolist() == (p >= 0.5).tolist()
    assert not hysteresis_threshold(np.zeros(3), 0.5, 0.3).any()


def test_smoothing_takes_the_median_of_neighbouring_boxes():
    boxes = [torch.tensor([[float(x), 0.0, 10.0, 10.0]]) for x in (1, 9, 2)] + [torch.zeros(0, 4)]
    assert [box[:, 0].tolist() for box in smooth_boxes(boxes, 1)] == [[1.0], [2.0], [2.0], []]


@pytest.mark.slow
def test_only_a_structure_in_one_piece_loses_the_smaller_ones(segmenter, phantom, tmp_path, monkeypatch):
    sitk.WriteImage(phantom.ct[:, :, 8:12], str(tmp_path / "ct.nrrd"))
    volume = read_volume(tmp_path / "ct.nrrd")
    monkeypatch.setattr("SAMMixLib.inference.scan.largest_component", np.zeros_like)
    assert not segmenter.segment(volume).mask.any()
    kidney = replace(segmenter, structure=KIDNEY).segment(volume)
    assert kidney.mask.any() and kidney.structure == "kidney"


def test_devices_are_checked():
    assert choose_device("cpu")[0].type == "cpu" and "CPU" in choose_device("cpu")[1]
    assert choose_dtype(torch.device("cpu"), "float32") == torch.float32
    for wanted in ("cuda:99", "tpu-or-so"):
        with pytest.raises(SAMMixError, match=wanted):
            choose_device(wanted)
