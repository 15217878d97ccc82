"""Reading CT files, judging them, and writing masks."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.masks import mask_on_grid, read_mask
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.imaging.writing import WRITABLE, check_output, write_mask
from SAMMixLib.structure import LIVER, TUMOUR

PIXDIM, QFORM_CODE, SROW = 76, 252, 280  # byte offsets in a NIfTI-1 header


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 500, (4, 5, 6)).astype(np.int16)


def save(path: Path, array: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def patched(path: Path, offset: int, layout: str, *values: float) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, content, offset, *values)
    path.write_bytes(content)
    return path


def refusal(path: Path, **options) -> str:
    with pytest.raises(SAMMixError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_reads_every_format(tmp_path, hu, suffix):
    volume = read_volume(save(tmp_path / f"ct.a{suffix}", hu))
    assert volume.name == "ct.a"
    assert volume.warnings == ()
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), hu)


def test_missing_unknown_empty_and_text(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.nii")
    (tmp_path / "ct.png").write_bytes(b"x")
    assert "unknown suffix '.png'" in refusal(tmp_path / "ct.png")
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"):
        path = tmp_path / f"file{suffix}"
        path.write_text("")
        assert "empty" in refusal(path)
        path.write_text("not an image\n" * 100)
        refusal(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_truncated(tmp_path, hu, suffix, part):
    path = save(tmp_path / f"ct{suffix}", hu)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refusal(path)


@pytest.mark.parametrize("offset", [0.0, float("nan")])
def test_nifti_without_offset(tmp_path, hu, offset):
    """ITK would read it from a wrong byte on."""
    assert "cannot start at byte" in refusal(patched(save(tmp_path / "ct.nii", hu), 108, "f", offset))


def test_damaged_gzip(tmp_path, hu):
    path = save(tmp_path / "ct.nii.gz", hu)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_concatenated_gzip_is_whole(tmp_path, hu):
    whole = save(tmp_path / "ct.nii", hu).read_bytes()
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_volume(path).image), hu)


def test_2d_4d_vector_and_complex(tmp_path, hu):
    assert "2D image" in refusal(save(tmp_path / "flat.nii", hu[0]))
    series = sitk.JoinSeries([sitk.GetImageFromArray(hu)] * 3)
    for suffix in (".nii", ".nrrd", ".mha"):
        sitk.WriteImage(series, str(tmp_path / f"series{suffix}"))
        assert "4D series of 6 x 5 x 4 x 3" in refusal(tmp_path / f"series{suffix}")
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([hu] * 3, -1), isVector=True), str(tmp_path / "rgb.nrrd"))
    assert "3 values a voxel" in refusal(tmp_path / "rgb.nrrd")
    assert "complex" in refusal(save(tmp_path / "complex.nii", hu.astype(np.complex64)))


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_nifti_spacing_that_itk_hides(tmp_path, hu, value):
    path = patched(save(tmp_path / "ct.nii", hu), PIXDIM + 12, "f", value)
    (warning,) = read_volume(path).warnings
    assert "pixdim is not valid" in warning and "the sform counts" in warning
    assert "spacing" in refusal(patched(path, QFORM_CODE, "2h", 1, 0))


@pytest.mark.parametrize(("old", "new"), [("1 1 1", "1 1 0"), ("1 1 1", "1 1 nan")])
def test_metaimage_spacing(tmp_path, hu, old, new):
    path = save(tmp_path / "ct.mha", hu)
    path.write_bytes(path.read_bytes().replace(f"ElementSpacing = {old}".encode(), f"ElementSpacing = {new}".encode()))
    assert "spacing" in refusal(path)


def test_direction_that_is_no_grid(tmp_path, hu):
    path = save(tmp_path / "ct.mha", hu)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"= 1 0 0 0 1 0 0 0 1", b"= 1 0 0 0 1 0 1 0 0"))
    assert "orientation" in refusal(path)
    path.write_bytes(whole.replace(b"= 1 0 0 0 1 0 0 0 1", b"= 1 0 0 0 1 0 0 0.2 1"))
    assert "sheared by 11.3 degrees" in refusal(path)


def test_nifti_forms(tmp_path, hu):
    path = save(tmp_path / "ct.nii", hu)
    whole = path.read_bytes()
    assert "sheared by 26.6 degrees" in refusal(patched(path, SROW + 16, "4f", 0, -1, 0.5, 0))
    path.write_bytes(whole)
    (warning,) = read_volume(patched(path, SROW + 40, "f", 0.0)).warnings
    assert "sform is not valid" in warning and "the qform counts" in warning
    assert "not valid" in refusal(patched(path, QFORM_CODE, "2h", 0, 1))
    path.write_bytes(whole)
    (warning,) = read_volume(patched(path, QFORM_CODE, "2h", 0, 0)).warnings
    assert "no orientation" in warning


def test_constant_and_scaled(tmp_path, hu):
    assert "every voxel is 7" in refusal(save(tmp_path / "same.nii", np.full_like(hu, 7)))
    assert "span only 0 to 1" in refusal(save(tmp_path / "mask.nii", (hu > 0).astype(np.uint8)))
    nothing = np.full(hu.shape, np.nan, np.float32)
    assert "every voxel is -1024" in refusal(save(tmp_path / "nan.nii", nothing))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_counts_as_air(tmp_path, hu, suffix, dtype):
    """In NIfTI too, where ITK makes such voxels 0 HU, which is tissue."""
    values = hu.astype(dtype)
    values[1, 2, :3] = np.nan, np.inf, -np.inf
    volume = read_volume(save(tmp_path / f"ct{suffix}", values))
    assert "3 voxels are NaN or infinite" in volume.warnings[0]
    assert volume.axial().array.dtype == np.int16
    hu[1, 2, :3] = -1024
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), hu)


def test_the_whole_range_of_int16_is_no_narrow_span(tmp_path, hu):
    hu = hu.astype(np.int16)
    hu.flat[:2] = -32768, 32767
    volume = read_volume(save(tmp_path / "ct.nrrd", hu))
    assert sitk.GetArrayViewFromImage(volume.image).min() == -1024


def test_padding_is_cut_without_a_word(tmp_path, hu):
    hu[0] = -3024
    volume = read_volume(save(tmp_path / "ct.nii", hu))
    assert volume.warnings == ()
    assert sitk.GetArrayFromImage(volume.image).min() == -1024


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda hu: (hu + 1024).astype(np.uint16), id="offset 1024"),
        pytest.param(lambda hu: np.where(hu < -900, -2000, hu + 1024).astype(np.int16), id="offset and padding"),
        pytest.param(lambda hu: np.clip(hu, -150, 250), id="MR or cut to the body"),
    ],
)
def test_no_air_warns(tmp_path, hu, values):
    (warning,) = read_volume(save(tmp_path / "ct.nii", values(hu))).warnings
    assert "no air" in warning and "\n" not in warning


@pytest.mark.parametrize(
    ("dtype", "shift", "expected"),
    [
        (np.float64, 0.0, np.int16),
        (np.int32, 0, np.int16),
        (np.int32, 40000, np.float32),
        (np.float32, 0.25, np.float32),
    ],
)
def test_int16_where_exact(tmp_path, hu, dtype, shift, expected):
    values = hu.astype(dtype)
    values[0, 0, 0] += shift
    array = read_volume(save(tmp_path / "ct.nrrd", values)).axial().array
    assert array.dtype == expected and np.array_equal(array, values)


def test_series_is_for_folders(tmp_path, hu):
    assert "DICOM folder only" in refusal(save(tmp_path / "ct.nii", hu), series="1")


def test_itk_stays_silent(tmp_path, hu, capfd):
    path = save(tmp_path / "ct.mha", hu)
    path.write_bytes(path.read_bytes()[:-50])
    refusal(path)
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "odd.nii"))
    read_volume(patched(tmp_path / "odd.nii", PIXDIM + 12, "f", 2.0))
    assert capfd.readouterr() == ("", "")


def test_read_mask(tmp_path):
    labels = np.array([[[0, 1], [5, 6]]], np.uint8)
    path = save(tmp_path / "labels.nii.gz", labels)
    with pytest.raises(SAMMixError, match=r"3 labels \(1, 5, 6\); say which"):
        read_mask(path)
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(path, label=(5, 6, 7))), labels > 1)
    mask = read_mask(path, label=5)
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(mask), labels == 5)
    with pytest.raises(SAMMixError, match="no voxel has the value 261; there are 1, 5, 6"):
        read_mask(path, label=261)
    with pytest.raises(SAMMixError, match="no such mask"):
        read_mask(tmp_path / "nothing.nii")


def test_check_output(tmp_path):
    for suffix in WRITABLE:
        check_output(tmp_path / f"mask{suffix}")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.nrrd").mkdir()
    (tmp_path / "there.nrrd").touch()
    check_output(tmp_path / "there.nrrd", overwrite=True)
    for path, why, overwrite in [
        (tmp_path / "mask.png", "unknown suffix", True),
        (tmp_path / "mask", "unknown suffix", True),
        (tmp_path / "none" / "mask.nrrd", "does not exist", True),
        (tmp_path / "folder.nrrd", "is a folder", True),
        (tmp_path / "there.nrrd", "is there and not written by SAMMix", False),
    ]:
        with pytest.raises(SAMMixError, match=why):
            check_output(path, overwrite)


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write into any folder
    with pytest.raises(SAMMixError, match=r"cannot write into the folder .* \(Permission denied\)"):
        check_output(tmp_path / "mask.nrrd")


@pytest.mark.parametrize("suffix", WRITABLE)
def test_write_mask(tmp_path, suffix):
    labels = (np.arange(60).reshape(3, 4, 5) % 7).astype(np.uint8)
    path = tmp_path / f"mask{suffix}"
    path.write_text("an older file")
    with pytest.raises(SAMMixError, match="not written by SAMMix"):
        write_mask(sitk.GetImageFromArray(labels), path)
    assert path.read_text() == "an older file"
    write_mask(sitk.GetImageFromArray(labels), path, overwrite=True)
    write_mask(sitk.GetImageFromArray(labels), path)  # over one of ours
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels > 0)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("suffix", WRITABLE)
def test_full_disk_leaves_nothing(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 2, (16, 64, 64)).astype(np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(SAMMixError, match=r"not written: .* MB free"):
            write_mask(sitk.GetImageFromArray(noise), tmp_path / f"mask{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_older_file(tmp_path, monkeypatch):
    (tmp_path / "mask.nrrd").write_text("older")

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SAMMixError, match="Permission denied"):
        write_mask(sitk.GetImageFromArray(np.ones((2, 2, 2), np.uint8)), tmp_path / "mask.nrrd", True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]


def test_slicer_segment(tmp_path):
    path = tmp_path / "mask.seg.nrrd"
    write_mask(sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), path)
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("Segment0_Name") == "liver"
    assert image.GetMetaData("Segment0_Color") == "0.866667 0.509804 0.396078"
    assert image.GetMetaData("Segment0_Extent") == "0 3 0 2 0 1"
    assert f"TerminologyEntry:{LIVER.terminology}|" in image.GetMetaData("Segment0_Tags")
    assert image.GetMetaData("Segmentation_SourceRepresentation") == "Binary labelmap"
    assert "is a segmentation" in refusal(path)
    write_mask(sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), path, structure=TUMOUR)
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("Segment0_Name") == "tumour" and "SCT^4147007^Mass" in image.GetMetaData("Segment0_Tags")


ODD = {
    "complex.nii.gz": "complex numbers",
    "ct_perfusion.nii.gz": "of 3 values each",
    "dcmqi3_liver.nii.gz": "span only 0 to 1",
    "dcmqi_liver_dicomseg.dcm": "a DICOM SEG is a segmentation, not a CT",
    "enhanced_multiframe_mr.dcm": "the modality is MR, not CT",
    "single_slice_mr.dcm": "the modality is MR, not CT",
    "shear.nii.gz": "sheared by 18.5 degrees",
    "ge_irregular_dicom": r"lean by 18.5 degrees \(gantry tilt\) and the slices lie 1.08 to 7 mm apart",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_refused(shared_data, name):
    path = shared_data / "odd" / name
    with pytest.raises(SAMMixError, match=ODD[name]):
        read_volume(path)


def test_odd_files_that_warn(shared_data, capfd):
    for path in [shared_data / "odd" / "mr_abdomen.nii.gz", *(shared_data / "odd" / "nifti_space").iterdir()]:
        (warning,) = read_volume(path).warnings
        assert "no HU by their histogram: perhaps no CT" in warning or "no air" in warning
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "size", "lowest"),
    [
        ("volumes/chaos_ct3_ct.nii.gz", (512, 512, 78), -1000),
        ("volumes/totalseg_a_img.nii.gz", (122, 101, 112), -1024),
        ("volumes/totalseg_b_dicom", (512, 512, 20), -1024),
        ("odd/dcmqi_ct3", (512, 512, 3), -1024),
    ],
)
def test_real_ct(shared_data, name, size, lowest):
    volume = read_volume(shared_data / name)
    assert volume.warnings == ()
    assert volume.image.GetSize() == size
    stack = volume.axial()
    assert stack.array.dtype == np.int16 and stack.array.min() == lowest


@pytest.mark.parametrize("name", ["chaos_ct3", "totalseg_a", "totalseg_b"])
def test_real_masks_lie_on_their_scans(shared_data, name):
    folder = shared_data / "volumes"
    scan = next(path for end in ("_ct.nii.gz", "_img.nii.gz", "_dicom") if (path := folder / (name + end)).exists())
    volume = read_volume(scan)
    mask = mask_on_grid(read_mask(folder / f"{name}_liver.nii.gz"), volume.image)
    liver = sitk.GetArrayViewFromImage(volume.image)[mask > 0]
    assert 40 < np.median(liver) < 160
    with pytest.raises(SAMMixError, match="span only"):
        read_volume(folder / f"{name}_liver.nii.gz")


def test_label_stored_in_another_axis_order(shared_data):
    folder = shared_data / "volumes"
    reference = read_volume(folder / "totalseg_b_dicom").image
    stored = read_mask(folder / "totalseg_b_seg.nii.gz", label=5)
    assert stored.GetDirection() != reference.GetDirection()
    liver = read_mask(folder / "totalseg_b_liver.nii.gz")
    assert np.array_equal(mask_on_grid(stored, reference), mask_on_grid(liver, reference))
