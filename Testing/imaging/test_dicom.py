"""DICOM series: found, chosen, put in order, and refused by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.volume import read_volume

UID = "1.2.826.0.1.3680043.2.1125.1."
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
UPRIGHT = np.eye(3)
HU = np.random.default_rng(0).integers(-1000, 400, (6, 4, 5)).astype(np.int16)


def write_slice(path: Path, pixels: np.ndarray, position=(0.0, 0.0, 0.0), direction=UPRIGHT, **tags) -> Path:
    """One DICOM file; ``tags`` are named like ``t0008_0060``."""
    image = sitk.GetImageFromArray(pixels[None])
    image.SetOrigin(position)
    image.SetDirection(np.ravel(direction).astype(float))
    image.SetSpacing((0.75, 0.5, 3.0))
    defaults = {
        "t0008_0016": CT_STORAGE,
        "t0008_0018": f"{UID}9.{abs(hash(path)) % 10**9}",
        "t0008_0060": "CT",
        "t0008_0008": "ORIGINAL\\PRIMARY\\AXIAL",
        "t0020_000e": UID + "1",
        "t0020_0011": "1",
        "t0018_0050": "3",
        "t0028_1052": "-1024",
        "t0028_1053": "1",
    }
    for name, value in {**defaults, **tags}.items():
        image.SetMetaData(name[1:].replace("_", "|"), value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.Execute(image)
    return path


def write_series(folder: Path, heights=range(0, 18, 3), names=None, **tags) -> Path:
    names = names or [f"{n:02}.dcm" for n in range(len(heights))]
    for name, pixels, z in zip(names, HU, heights, strict=False):
        write_slice(folder / name, pixels, (-10.5, 20.25, float(z)), **tags)
    return folder


def refusal(path: Path, **options) -> str:
    with pytest.raises(SAMMixError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def voxels(path: Path, **options) -> np.ndarray:
    return sitk.GetArrayFromImage(read_volume(path, **options).image)


def test_series_in_order_of_position(tmp_path):
    """Names, and instance numbers, say nothing: positions do; subfolders are searched."""
    write_series(tmp_path / "study" / "a", names=["f.dcm", "a", "e.IMA", "1.2.3.4", "c.dcm", "b.dcm"])
    (tmp_path / "notes.txt").write_text("not DICOM")
    volume = read_volume(tmp_path)
    assert volume.warnings == () and volume.name == tmp_path.name
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), HU)
    assert volume.image.GetSpacing() == (0.75, 0.5, 3.0)
    assert volume.image.GetOrigin() == (-10.5, 20.25, 0.0)
    assert volume.image.GetDirection() == tuple(np.eye(3).ravel())


def test_one_file_stands_for_its_series(tmp_path):
    write_series(tmp_path)
    write_series(tmp_path, names=[f"other{n}.dcm" for n in range(6)], t0020_000e=UID + "2")
    volume = read_volume(tmp_path / "03.dcm")
    assert volume.name == "03"
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), HU)
    assert "DICOM folder only" in refusal(tmp_path / "03.dcm", series="1")


def test_sagittal_series(tmp_path):
    direction = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    for n, pixels in enumerate(HU):
        write_slice(tmp_path / f"{9 - n}.dcm", pixels, (2.0 * n, 0.0, 0.0), direction)
    volume = read_volume(tmp_path)
    direction_read = np.reshape(volume.image.GetDirection(), (3, 3))
    assert np.abs(direction_read @ [0, 0, 1]).argmax() == 0
    stack = volume.axial()
    assert stack.array.shape == (4, 5, 6) and stack.spacing == (0.5, 0.75, 2.0)
    assert np.array_equal(stack.array, HU.transpose(1, 2, 0)[::-1])


def test_choice_among_series(tmp_path):
    write_series(tmp_path / "a", t0020_0011="2", t0008_103e="Abdomen 3 mm")
    write_series(tmp_path / "b", t0020_0011="10", t0020_000e=UID + "2", t0008_103e="Lung")
    write_series(tmp_path / "c", t0020_0011="1", t0020_000e=UID + "3", t0008_0060="MR")
    message = refusal(tmp_path)
    assert "2 CT series" in message
    assert f"1: 'Abdomen 3 mm', 6 slices of 5 x 4, UID {UID}1; 2: 'Lung'" in message
    for series in ("1", "2", UID + "1"):
        assert np.array_equal(voxels(tmp_path, series=series), HU)
    assert "no CT series '3'" in refusal(tmp_path, series="3")
    assert "the modality is MR" in refusal(tmp_path, series=UID + "3")


def test_scouts_and_secondary_captures_are_left_out(tmp_path):
    write_series(tmp_path)
    scout = np.zeros((9, 9), np.int16)
    write_slice(tmp_path / "scout1.dcm", scout, t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER")
    write_slice(tmp_path / "scout2.dcm", scout, t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER", t0020_000e=UID + "2")
    report = write_slice(tmp_path / "report.dcm", scout, t0020_000e=UID + "3")
    position, unknown = b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"  # little-endian tags
    report.write_bytes(report.read_bytes().replace(position, unknown))
    assert np.array_equal(voxels(tmp_path), HU)
    assert "a scout (localizer)" in refusal(tmp_path / "scout2.dcm")
    assert "without position" in refusal(report)


def test_nothing_to_segment(tmp_path):
    assert "no DICOM file" in refusal(tmp_path)
    write_series(tmp_path, t0008_0060="PT")
    assert "6 file(s): the modality is PT, not CT" in refusal(tmp_path)


def test_rescale_of_every_slice_counts(tmp_path):
    for n, pixels in enumerate(HU):
        path = write_slice(tmp_path / f"{n}.dcm", pixels // 2 * 2, (0.0, 0.0, 3.0 * n), t0028_1053=str(n % 2 + 1))
        if n == 3:
            slope = b"\x28\x00\x53\x10\x02\x00\x00\x00"  # the writer itself refuses a fraction
            path.write_bytes(path.read_bytes().replace(slope + b"2 ", slope + b".5"))
    expected = (HU // 2 * 2).astype(float)
    expected[3] = (expected[3] + 1024) / 4 - 1024
    assert np.array_equal(voxels(tmp_path), expected)


def test_missing_slices(tmp_path):
    write_series(tmp_path)
    (tmp_path / "02.dcm").unlink()
    (tmp_path / "03.dcm").unlink()
    assert "2 slice(s) missing at a distance of 3 mm (after 01.dcm)" in refusal(tmp_path)


def test_damaged_slice(tmp_path):
    write_series(tmp_path)
    path = tmp_path / "05.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SAMMixError, match=r"05\.dcm: the file is damaged or cut off: 30 of 40 bytes"):
        read_volume(tmp_path)
    path.write_bytes(path.read_bytes()[:200])  # not even the series can be told
    (warning,) = read_volume(tmp_path).warnings
    assert "left out: 05.dcm: damaged" in warning
    assert "damaged" in refusal(path)


def test_uneven_slices(tmp_path):
    write_series(tmp_path / "irregular", heights=[0, 3, 6, 11, 18, 26])
    assert "slices lie 3 to 8 mm apart" in refusal(tmp_path / "irregular")
    write_series(tmp_path / "rounded", heights=[0, 3, 6.1, 9, 12, 15])
    volume = read_volume(tmp_path / "rounded")
    assert "off an even grid by up to 0.1 mm" in volume.warnings[0]
    assert volume.image.GetSpacing()[2] == 3.0


def test_gantry_tilt(tmp_path):
    for n, pixels in enumerate(HU):
        write_slice(tmp_path / f"{n}.dcm", pixels, (0.0, n * 3 * np.tan(np.radians(12)), 3.0 * n))
    message = refusal(tmp_path)
    assert "lean by 12.0 degrees (gantry tilt)" in message and "apart" not in message


def test_repeated_slices(tmp_path):
    write_series(tmp_path)
    shutil.copy(tmp_path / "02.dcm", tmp_path / "copy.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), HU)
    assert "1 slice(s) that are there twice" in volume.warnings[0]
    write_slice(tmp_path / "phase.dcm", HU[0] + 1, (-10.5, 20.25, 9.0))
    assert "different images at one position" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pixels": np.zeros((8, 8), np.int16)}, "different size"),
        ({"direction": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])}, "different orientation"),
    ],
)
def test_slices_that_do_not_belong_together(tmp_path, change, why):
    write_series(tmp_path)
    write_slice(tmp_path / "x.dcm", **{"pixels": HU[0], "position": (-10.5, 20.25, 18.0), **change})
    assert why in refusal(tmp_path)


def test_single_slice(tmp_path):
    volume = read_volume(write_slice(tmp_path / "one.dcm", HU[0]))
    assert "a single slice; its thickness is 3 mm" in volume.warnings[0]
    assert volume.image.GetSpacing() == (0.75, 0.5, 3.0)
    assert "without thickness" in refusal(write_slice(tmp_path / "b" / "one.dcm", HU[0], t0018_0050="0"))


def test_jpeg2000_without_uids(shared_data):
    volume = read_volume(shared_data / "volumes" / "totalseg_b_dicom")
    assert volume.image.GetSpacing() == (0.9765625, 0.9765625, 2.0)
    assert volume.image.GetOrigin() == (-249.51171875, -437.51171875, -804.5)


def test_one_file_of_real_series(shared_data):
    folder = shared_data / "odd" / "dcmqi_ct3"
    assert np.array_equal(voxels(folder / "02.dcm"), voxels(folder))
    assert read_volume(folder).image.GetOrigin()[2] == pytest.approx(-128.690002)


def test_itk_stays_silent(tmp_path, shared_data, capfd):
    read_volume(shared_data / "odd" / "dcmqi_ct3")
    refusal(shared_data / "odd" / "ge_irregular_dicom")
    refusal(shared_data / "odd")
    (tmp_path / "text.dcm").write_text("nothing")
    refusal(tmp_path / "text.dcm")
    assert capfd.readouterr() == ("", "")


def modern(folder: Path, enhanced: bool = False, preamble: bool = True, **changes) -> Path:
    """The slices of HU as pydicom writes them: classic, or enhanced in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = [[-10.5, 20.25, 3.0 * n] for n in range(len(HU))]
    for n, pixels in [(0, HU)] if enhanced else enumerate(HU):
        meta = FileMetaDataset()
        kind = EnhancedCTImageStorage if enhanced else CTImageStorage
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, f"{UID}7.{n}"
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if not preamble else ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID = kind, f"{UID}7.{n}"
        file.Modality, file.SeriesInstanceUID = "CT", UID + "7"
        file.Rows, file.Columns = HU.shape[1:]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = (pixels.astype(int) + 1024).astype("<u2").tobytes()
        if enhanced:
            file.NumberOfFrames = len(HU)
            file.SharedFunctionalGroupsSequence = [_shared()]
            file.PerFrameFunctionalGroupsSequence = [_own(position) for position in positions[::-1]]
            file.PixelData = (pixels[::-1].astype(int) + 1024).astype("<u2").tobytes()
        else:
            file.ImagePositionPatient, file.ImageOrientationPatient = positions[n], [1, 0, 0, 0, 1, 0]
            file.PixelSpacing, file.SliceThickness = [0.5, 0.75], 3
            file.RescaleSlope, file.RescaleIntercept = 1, -1024
        for name, value in changes.items():
            setattr(file, name, value(n) if callable(value) else value)
        path = folder / (f"IM{n:04}" if not preamble else f"{n}.dcm")
        file.save_as(path, enforce_file_format=True)
        if not preamble:  # nor the group of the file itself, as old archives keep them
            content = path.read_bytes()[132:]
            length = int.from_bytes(content[8:12], "little")
            path.write_bytes(content[12 + length :])
    return folder


def _shared() -> Dataset:
    measures, plane, values, group = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 3
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [plane]
    group.PixelValueTransformationSequence = [values]
    return group


def _own(position) -> Dataset:
    place, group = Dataset(), Dataset()
    place.ImagePositionPatient = position
    group.PlanePositionSequence = [place]
    return group


def reads_as_hu(path: Path) -> tuple[str, ...]:
    volume = read_volume(path)
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), HU)
    assert volume.image.GetSpacing() == (0.75, 0.5, 3.0) and volume.image.GetOrigin() == (-10.5, 20.25, 0.0)
    return volume.warnings


def test_enhanced_multi_frame(tmp_path):
    assert reads_as_hu(modern(tmp_path, enhanced=True)) == ()
    assert reads_as_hu(tmp_path / "0.dcm") == ()


def test_without_preamble_and_extension(tmp_path):
    assert reads_as_hu(modern(tmp_path, preamble=False)) == ()
    assert reads_as_hu(tmp_path / "IM0003") == ()


@pytest.mark.parametrize("between", [0, 1, 30, -3])
@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"])
def test_positions_rule_whatever_else_is_said(tmp_path, between, kind):
    assert reads_as_hu(modern(tmp_path, SpacingBetweenSlices=between, SOPClassUID=kind)) == ()


def test_names_that_are_not_utf8(tmp_path):
    modern(tmp_path)
    stray = os.fsencode(tmp_path) + b"/\xdcbersicht.dcm"
    try:
        shutil.copy(tmp_path / "2.dcm", stray)
    except OSError:
        pytest.skip("this disk takes no such name")
    (warning,) = reads_as_hu(tmp_path)
    assert "there twice" in warning
    for n in range(6):
        os.rename(tmp_path / f"{n}.dcm", os.fsencode(tmp_path) + b"/\xe9%d" % n)
    reads_as_hu(tmp_path)


def test_links_to_files_and_folders_and_no_circle(tmp_path):
    modern(tmp_path / "real")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "there").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "circle").symlink_to(tmp_path / "real")
    assert reads_as_hu(tmp_path / "scan") == ()


def test_dicomdir(tmp_path):
    from pydicom.fileset import FileSet

    files = FileSet()
    for path in sorted(modern(tmp_path / "slices", PatientID="1", StudyInstanceUID=UID + "5", StudyID="1",
                              PatientName="", StudyDate="20200101", StudyTime="10", SeriesNumber=1,
                              AccessionNumber="", InstanceNumber=lambda n: n).iterdir()):  # fmt: skip
        files.add(path)
    files.write(tmp_path / "disc")
    assert reads_as_hu(tmp_path / "disc" / "DICOMDIR") == ()
    assert reads_as_hu(tmp_path / "disc") == ()


@pytest.mark.parametrize("aside", [0.5, 1.5])
def test_one_slice_a_little_aside(tmp_path, aside):
    def position(n: int) -> list[float]:
        return [-10.5 + (aside if n == 3 else 0), 20.25, 3.0 * n]

    (warning,) = reads_as_hu(modern(tmp_path, ImagePositionPatient=position))
    assert f"a slice lies {aside} mm aside of the others (3.dcm)" in warning


def test_a_slice_far_aside_is_named(tmp_path):
    modern(tmp_path, ImagePositionPatient=lambda n: [-10.5 + (25 if n == 3 else 0), 20.25, 3.0 * n])
    message = refusal(tmp_path)
    assert "a slice lies 25 mm aside of the others (3.dcm)" in message and "tilt" not in message


def test_a_cut_file_is_named(tmp_path):
    modern(tmp_path)
    path = tmp_path / "4.dcm"
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(SAMMixError, match=r"4\.dcm: the file is damaged or cut off: 15 of 40 bytes"):
        read_volume(tmp_path)
    path.write_bytes(path.read_bytes()[:160])
    assert "5.dcm" not in (message := refusal(tmp_path)) and "4.dcm: damaged" in message


@pytest.mark.parametrize("stored", [12, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_the_stored_ones_do_not_count(tmp_path, stored, signed):
    noise = np.random.default_rng(0).integers(0, 16, HU.shape).astype("<u2") << 12
    values = (HU.astype(int) + (0 if signed else 1024)).astype("<u2")
    pixels = (values & 0xFFF) | noise if stored == 12 else values
    modern(tmp_path, PixelData=lambda n: pixels[n].tobytes(), BitsStored=stored, HighBit=stored - 1,
           PixelRepresentation=signed, RescaleIntercept=0 if signed else -1024)  # fmt: skip
    assert reads_as_hu(tmp_path) == ()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour picture is not a CT"),
        ({"PixelSpacing": lambda n: [0.5, 0.75] if n < 3 else [1, 1]}, "slices of different pixel spacing"),
        (
            {"ImageOrientationPatient": lambda n: [1, 0, 0, 0, 1, 0] if n else [1, 0, 0, 0, 0, -1]},
            "different orientation",
        ),
        ({"ImagePositionPatient": lambda n: [0, n, 3 * n]}, "(gantry tilt)"),
        ({"ImagePositionPatient": lambda n: [0, 0, 3 * n + 3 * (n > 2)]}, "1 slice(s) missing at a distance of 3 mm"),
        ({"ImagePositionPatient": lambda n: [0, 0, 3 * n if n < 3 else 6 * n]}, "the slices lie 3 to 12 mm apart"),
        ({"ImagePositionPatient": [0, 0, 0]}, "different images at one position"),
        ({"Modality": "PT"}, "the modality is PT, not CT"),
        ({"PixelSpacing": None}, "the pixel spacing is missing"),
    ],
)
def test_series_that_are_no_volume(tmp_path, changes, why):
    assert why in refusal(modern(tmp_path, **changes))


def test_a_scout_and_a_picture_of_the_same_series_are_left_out(tmp_path):
    modern(tmp_path)
    modern(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImagePositionPatient=[0, 0, 0])
    modern(tmp_path / "capture", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert reads_as_hu(tmp_path) == ()


def test_each_slice_has_its_own_rescale(tmp_path):
    slopes = [1 + n / 8 for n in range(len(HU))]
    rows = [
        np.rint((pixels.astype(int) + 1024) / slope).astype("<u2") for pixels, slope in zip(HU, slopes, strict=True)
    ]
    modern(tmp_path, RescaleSlope=lambda n: slopes[n], PixelData=lambda n: rows[n].tobytes())
    assert np.abs(voxels(tmp_path) - HU).max() <= max(slopes) / 2


@pytest.mark.parametrize("slope", [0, None])
def test_a_slope_of_zero_says_nothing(tmp_path, slope):
    assert reads_as_hu(modern(tmp_path, RescaleSlope=slope)) == ()


def test_a_file_without_integer_pixels_is_not_called_damaged(tmp_path):
    modern(tmp_path, PixelData=None)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-12])  # the empty element, too
    message = refusal(tmp_path)
    assert "0.dcm: the file holds no integer pixels" in message and "damaged" not in message


def test_a_damaged_length_costs_no_memory(tmp_path):
    """pydicom asks its file for as many bytes as an element says, and Python gets memory for them first."""
    modern(tmp_path)
    with (tmp_path / "3.dcm").open("ab") as file:
        file.write(b"\xe1\x7f\x10\x00OB\x00\x00" + (0xF0000000).to_bytes(4, "little") + b"few")
    tracemalloc.start()
    try:
        with contextlib.suppress(SAMMixError):
            read_volume(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_values_that_break_a_rule_and_can_be_read_are_no_remark_of_pydicoms(tmp_path, recwarn):
    modern(tmp_path, SeriesNumber=77, SliceThickness=3)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert content.count(b"IS\x02\x0077") == 1
        path.write_bytes(content.replace(b"IS\x02\x0077", b"IS\x02\x007A"))
    assert reads_as_hu(tmp_path) == () and not recwarn.list
