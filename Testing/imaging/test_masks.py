"""Masks are label maps and segments; what is neither is refused with what it seems to be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parent))
from odd_files import phantom, segmentation

from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.evaluate import evaluate_volumes
from SAMMixLib.evaluation.metrics import score_masks
from SAMMixLib.imaging.masks import axial_mask, read_mask
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.structure import LIVER, SPLEEN

LIVER_CODE = f"TerminologyEntry:{LIVER.terminology}|"


@pytest.fixture
def liver() -> np.ndarray:
    return sitk.GetArrayFromImage(phantom().liver)


def volume() -> Volume:
    return Volume(phantom().ct, Path("ct.nrrd"))


def save(path: Path, array: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(phantom().ct)
    sitk.WriteImage(image, str(path))
    return path


def refusal(path: Path, *more) -> str:
    with pytest.raises(SAMMixError) as caught:
        read_mask(path, *more)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [1, 5, 255, 0.99991, 4.999999])
def test_one_label_needs_no_choice_and_floats_are_rounded(tmp_path, liver, suffix, value):
    dtype = np.uint8 if isinstance(value, int) else np.float32
    path = save(tmp_path / f"m{suffix}", (liver * value).astype(dtype))
    for label in (None, round(value)):
        assert np.array_equal(axial_mask(path, volume(), label), liver)


def test_what_is_no_label_map(tmp_path, liver):
    smooth = liver * np.linspace(0.3, 0.97, 96, dtype=np.float32)
    assert "no integers (probabilities" in refusal(save(tmp_path / "p.nii.gz", smooth))
    assert "no integers (probabilities" in refusal(save(tmp_path / "p.nii.gz", smooth), 1)
    assert "no integers (an image" in refusal(save(tmp_path / "x.nii.gz", smooth * 300))
    ct = sitk.GetArrayFromImage(phantom().ct)
    assert "as of an image" in refusal(save(tmp_path / "ct.nii.gz", ct))
    assert "as of an image" in refusal(save(tmp_path / "ct.nii.gz", (ct + 1024).clip(0).astype(np.uint16)))
    assert "no such mask" in refusal(tmp_path / "absent.nrrd")


def test_many_labels_need_a_choice_that_is_there(tmp_path, liver):
    labels = sitk.GetArrayFromImage(phantom().labels)
    path = save(tmp_path / "all.nii.gz", labels)
    assert "labels (1, 2, 3" in refusal(path) and "say which" in refusal(path)
    assert "no voxel has the value 99" in refusal(path, 99)
    assert np.array_equal(axial_mask(path, volume(), 1), labels == 1)
    assert np.array_equal(axial_mask(path, volume(), (1, 2, 99)), np.isin(labels, (1, 2)))
    empty = save(tmp_path / "empty.nii.gz", np.zeros_like(liver))
    assert not axial_mask(empty, volume()).any() and not axial_mask(empty, volume(), 3).any()


def test_segments_by_code_and_by_name(tmp_path, liver):
    two = liver * 2
    two[0, :3] = 1
    grid = phantom().ct
    for names in (
        [("spleen", 1, 0, ""), ("Liver", 2, 0, "")],
        [("Segment_1", 1, 0, ""), ("Segment_2", 2, 0, LIVER_CODE)],
        [("liver", 1, 0, f"TerminologyEntry:{SPLEEN.terminology}|"), ("anything", 2, 0, LIVER_CODE)],
    ):
        assert np.array_equal(axial_mask(segmentation(tmp_path / "s.seg.nrrd", two, grid, names), volume()), liver)
    path = segmentation(tmp_path / "s.seg.nrrd", two, grid, [("spleen", 1, 0, ""), ("kidney", 2, 0, "")])
    assert "no segment liver by code or name; there are 1 spleen, 2 kidney" in refusal(path)
    assert np.array_equal(axial_mask(path, volume(), 2), liver)
    assert np.array_equal(axial_mask(path, volume(), structure=SPLEEN), two == 1)
    assert "no segment has the value 7" in refusal(path, 7)
    path = segmentation(tmp_path / "s.seg.nrrd", two, grid, [("liver", 1, 0, ""), ("liver", 2, 0, "")])
    assert "2 segments may be meant" in refusal(path)
    path = segmentation(tmp_path / "s.seg.nrrd", liver, grid, [("Segment_1", 1, 0, "")])
    assert np.array_equal(axial_mask(path, volume()), liver), "the only one, which says nothing else"
    assert "no segment liver" in refusal(segmentation(tmp_path / "s.seg.nrrd", liver, grid, [("Spleen", 1, 0, "")]))


def test_segments_in_layers(tmp_path, liver):
    layers = np.stack([np.ones_like(liver), liver], axis=-1)
    names = [("spleen", 1, 0, ""), ("liver", 1, 1, "")]
    path = segmentation(tmp_path / "s.seg.nrrd", layers, phantom().ct, names)
    assert np.array_equal(axial_mask(path, volume()), liver)


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
def test_segments_cut_to_their_extent_in_any_order_of_axes(tmp_path, liver, order):
    whole = sitk.DICOMOrient(phantom().liver, order)
    (x0, y0, z0, x, y, z) = _bounds(whole)
    cut = whole[x0 : x0 + x, y0 : y0 + y, z0 : z0 + z]
    path = segmentation(tmp_path / "s.seg.nrrd", sitk.GetArrayFromImage(cut), cut, [("liver", 1, 0, "")])
    assert np.array_equal(axial_mask(path, volume()), liver)


def test_a_segment_of_another_scan_is_refused(tmp_path, liver):
    moved = sitk.Image(phantom().liver)
    moved.SetOrigin(np.add(moved.GetOrigin(), (50 * 3.875, 0, 0)))
    path = segmentation(tmp_path / "s.seg.nrrd", liver, moved, [("liver", 1, 0, "")])
    with pytest.raises(SAMMixError, match=r"s\.seg\.nrrd for ct\.nrrd: the segment reaches beyond the volume"):
        axial_mask(path, volume())
    moved.SetOrigin(np.add(phantom().ct.GetOrigin(), (1.9, 0, 0)))
    path = segmentation(tmp_path / "s.seg.nrrd", liver, moved, [("liver", 1, 0, "")])
    with pytest.raises(SAMMixError, match="voxels off the volume's grid"):
        axial_mask(path, volume())


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
def test_masks_that_are_cut_are_compared_on_a_grid_that_holds_both(tmp_path, liver, order):
    """The reference is cut to its extent; the prediction lacks a slice and is whole, or cut on its own axes."""
    found = sitk.Image(phantom().liver)
    k = int(np.flatnonzero(liver.any(axis=(1, 2)))[0])
    found[:, :, k] = 0
    expected = score_masks(sitk.GetArrayFromImage(found) > 0, liver > 0, phantom().ct.GetSpacing()[::-1]).dice
    files = {}
    for name, mask in (("found", sitk.DICOMOrient(found, order)), ("truth", phantom().liver)):
        (x0, y0, z0, x, y, z) = _bounds(mask)
        cut = mask[x0 : x0 + x, y0 : y0 + y, z0 : z0 + z]
        path = tmp_path / f"{name}.seg.nrrd"
        files[name] = segmentation(path, sitk.GetArrayFromImage(cut), cut, [("liver", 1, 0, "")])
    sitk.WriteImage(found, str(tmp_path / "found.nii.gz"))
    for prediction in (files["found"], tmp_path / "found.nii.gz"):
        for pair in ((prediction, files["truth"]), (files["truth"], prediction)):
            (scores,) = evaluate_volumes([pair], {}).volumes
            assert 0.5 < expected < 1 and scores["dice"] == pytest.approx(expected)


def test_cut_masks_of_different_scans_are_refused(tmp_path, liver):
    far = sitk.Image(phantom().liver)
    far.SetOrigin((0, 0, 1e9))
    files = [
        segmentation(tmp_path / f"{n}.seg.nrrd", liver, grid, [("liver", 1, 0, "")])
        for n, grid in enumerate((phantom().liver, far))
    ]
    with pytest.raises(SAMMixError, match="too far apart"):
        evaluate_volumes([files], {})


def _bounds(mask: sitk.Image) -> tuple[int, ...]:
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    return shape.GetBoundingBox(1)


def test_dicom_seg_is_the_mask_that_it_was_made_of(shared_data):
    from SAMMixLib.imaging.volume import read_volume

    odd = shared_data / "odd"
    ct = read_volume(odd / "dcmqi_ct3")
    found = axial_mask(odd / "dcmqi_liver_dicomseg.dcm", ct)
    assert found.any() and np.array_equal(found, axial_mask(odd / "dcmqi3_liver.nii.gz", ct))
    with pytest.raises(SAMMixError, match=r"is no SEG"):
        read_mask(odd / "dcmqi_ct3" / "02.dcm")
