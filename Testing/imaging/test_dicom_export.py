"""A mask as DICOM SEG: read back voxel for voxel, tied to its images, and clean before dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib import LIVER, SAMMixError, read_volume

highdicom = pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")

from SAMMixLib.imaging.dicom_export import (  # noqa: E402
    check_sources,
    series_files,
    write_measurements,
    write_segmentation,
)


@pytest.fixture(scope="module")
def folder(shared_data) -> Path:
    return shared_data / "volumes" / "totalseg_b_dicom"


@pytest.fixture(scope="module")
def mask(folder) -> sitk.Image:
    """Not symmetric in any axis, so that a turned one shows."""
    image = read_volume(folder).image
    array = np.zeros(image.GetSize()[::-1], np.uint8)
    array[3:17, 100:220, 120:300] = 1
    array[5, 110, 130] = 0
    mask = sitk.GetImageFromArray(array)
    mask.CopyInformation(image)
    return mask


def test_read_back_voxel_for_voxel_where_the_images_are(folder, mask, tmp_path):
    import pydicom

    sources = series_files(folder, mask)
    write_segmentation(mask, tmp_path / "liver.dcm", sources, LIVER, "starter")
    found = highdicom.seg.segread(tmp_path / "liver.dcm")
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sources]
    by_place = {float(header.ImagePositionPatient[2]): header for header in headers}
    array = sitk.GetArrayFromImage(mask)
    seen = np.zeros_like(array)
    for frame, content in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(v) for v in content.PlanePositionSequence[0].ImagePositionPatient]
        k = round(mask.TransformPhysicalPointToContinuousIndex(position)[2])
        seen[k] = frame
        source = content.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == by_place[position[2]].file_meta.MediaStorageSOPInstanceUID
    assert np.array_equal(seen, array)
    assert found.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    segment = found.SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == LIVER.code
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert "SAM-Mix" in segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not here")
@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(folder, mask, tmp_path, empty):
    sources = series_files(folder, mask)
    write_segmentation(mask * 0 if empty else mask, tmp_path / "liver.dcm", sources, LIVER, "starter")
    write_measurements(tmp_path / "liver.dcm", tmp_path / "report.dcm", sources)
    for name in ("liver.dcm", "report.dcm"):
        said = subprocess.run(["dciodvfy", "-new", tmp_path / name], capture_output=True, text=True).stderr
        assert "Warning" in said or "Segmentation" in said  # it has looked
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def test_report_says_the_volume(folder, mask, tmp_path):
    sources = series_files(folder, mask)
    write_segmentation(mask, tmp_path / "liver.dcm", sources, LIVER, "starter")
    write_measurements(tmp_path / "liver.dcm", tmp_path / "report.dcm", sources)
    report = highdicom.sr.srread(tmp_path / "report.dcm")
    group = report.content.get_volumetric_roi_measurement_groups()[0]
    measured = group.get_measurements()[0]
    expected = int(sitk.GetArrayFromImage(mask).sum()) * np.prod(mask.GetSpacing()) / 1000
    assert measured.value == pytest.approx(expected, rel=1e-4)
    assert (
        group.referenced_segment.referenced_sop_instance_uid
        == highdicom.seg.segread(tmp_path / "liver.dcm").SOPInstanceUID
    )


def test_what_cannot_be_a_dicom_seg_is_one_line(folder, mask, tmp_path):
    scan = tmp_path / "scan.nii.gz"
    sitk.WriteImage(mask, str(scan))
    with pytest.raises(SAMMixError, match="which this is not"):
        check_sources(scan)
    with pytest.raises(SAMMixError, match="give the whole series"):
        write_segmentation(mask, tmp_path / "liver.dcm", series_files(folder, mask)[:-1], LIVER, "starter")
    moved = sitk.Image(mask)
    moved.SetOrigin([value + 1 for value in mask.GetOrigin()])
    with pytest.raises(SAMMixError, match="0 CT series lie on the mask's grid"):
        series_files(folder, moved)
    assert not (tmp_path / "liver.dcm").exists()
