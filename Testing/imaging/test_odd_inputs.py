"""Odd files as users of the field's tools report them: the right volume, a volume with a warning, or one true line."""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parent))
from odd_files import hu, phantom, to_ras, write_nifti

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import AxialGrid
from SAMMixLib.imaging.masks import read_mask
from SAMMixLib.imaging.volume import read_volume

LEFT, POSTERIOR, LOW = phantom().ct.GetOrigin()
HALF_TURN = {"qform_code": 1, "quatern": (0, 0, 1), "qoffset": to_ras(phantom().ct)[:3, 3]}


def comes_to(path: Path, expected: str) -> None:
    """The phantom without a word ("right"), with a warning ("warns: ..."), or a refusal ("refused: ...")."""
    kind, _, words = expected.partition(": ")
    if kind == "refused":
        with pytest.raises(SAMMixError) as caught:
            read_volume(path)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        return
    volume = read_volume(path)
    assert " ".join(volume.warnings).count(words) and bool(volume.warnings) == (kind == "warns"), volume.warnings
    if kind == "right":
        assert np.abs(sitk.GetArrayFromImage(volume.image) - hu()).max() < 1e-3
        assert volume.grid.apart_from(AxialGrid.of(phantom().ct)) < 1e-3


def stored(shift: int, dtype: str, factor: int = 1) -> np.ndarray:
    return (hu().astype(int) * factor + shift).astype(dtype)


@pytest.mark.parametrize(
    ("array", "fields", "expected"),
    [
        (hu(), {"dim": [4, 96, 96, 14, 1, 1, 1, 1]}, "right"),
        (hu(), {"dim": [5, 96, 96, 14, 1, 1, 1, 1]}, "right"),
        (hu(), {"dim": [3, 96, 96, 14, 0, 0, 0, 0]}, "right"),
        (np.concatenate([hu(), hu()]), {"dim": [4, 96, 96, 14, 2, 1, 1, 1]}, "refused: a 4D series"),
        (stored(1024, "u2"), {"scl_slope": 1, "scl_inter": -1024}, "right"),
        (stored(1024, "u2"), {"scl_slope": 0, "scl_inter": -1024}, "warns: subtract 1024"),
        (stored(1024, "u2"), {"scl_slope": np.nan, "scl_inter": -1024}, "warns: subtract 1024"),
        (stored(0, "i2", -1), {"scl_slope": -1}, "right"),
        (hu(), {"scl_slope": 1, "scl_inter": np.nan}, "right"),
        (hu(), {"scl_slope": np.inf}, "right"),
        (hu(), {"scl_slope": 1e-30}, "refused: span only"),
        ((hu() // 10).clip(-128, 127).astype("i1"), {}, "warns: multiply by 10"),
        (hu().astype("f8"), {}, "right"),
        (hu().astype("i8"), {}, "right"),
        (hu(), {"sform_code": 0, "pixdim": [1, -3.875, -3.875, -15, 1, 1, 1, 1]}, "warns: no orientation"),
        (hu(), {"sform_code": 0, "pixdim": [1, 0, 0, 0, 1, 1, 1, 1]}, "refused: spacing is 0 x 0 x 0 mm"),
        (hu(), {"srow": to_ras(phantom().ct)[:3] * [[1], [1], [0]]}, "refused: orientation in the header is not valid"),
        (hu(), {"srow": 0, **HALF_TURN}, "warns: its sform is not valid (zero or not a number); the qform counts"),
        (hu(), {"sform_code": 99}, "right"),
        (
            hu(),
            {"srow": 3.875e3 * np.eye(3, 4), "pixdim": [1, 3875, 3875, 3875, 1, 1, 1, 1]},
            "warns: no CT has voxels",
        ),
    ],
)
def test_nifti(tmp_path, array, fields, expected):
    comes_to(write_nifti(tmp_path / "ct.nii.gz", array, **fields), expected)


def _zipped(path: Path) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ct.nii", content)


def _packed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(gzip.compress(path.read_bytes(), 1))) and None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_packed(lambda packed: packed + b"garbage" * 20), "right"),
        (_packed(lambda packed: packed + bytes(1000)), "right"),
        (_packed(lambda packed: gzip.compress(packed)), "refused: not a NIfTI file"),
        (_packed(lambda packed: packed[:-8] + b"12345678"), "refused: truncated or damaged (gzip)"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>404</html>"), "refused: not a NIfTI file"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "refused: not a NIfTI file"),
        (_zipped, "refused: not a NIfTI file"),
    ],
)
def test_what_is_called_nii_gz(tmp_path, change, expected):
    path = write_nifti(tmp_path / "ct.nii.gz", hu(), packed=False)
    change(path)
    comes_to(path, expected)


GEOMETRY = f"space: {{}}\nspace directions: ({{}},0,0) (0,{{}},0) (0,0,15)\nspace origin: ({{}},{{}},{LOW:g})"
LPS = GEOMETRY.format("left-posterior-superior", 3.875, 3.875, LEFT, POSTERIOR)


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (LPS, "right"),
        (GEOMETRY.format("right-anterior-superior", -3.875, -3.875, -LEFT, -POSTERIOR), "right"),
        (GEOMETRY.format("LAS", 3.875, -3.875, LEFT, -POSTERIOR), "right"),
        (LPS.replace("space: left-posterior-superior", "space dimension: 3"), "warns: no orientation"),
        (LPS.replace("left-posterior-superior", "scanner-xyz"), "warns: no orientation"),
        ("spacings: 3.875 3.875 15", "warns: no orientation"),
        ("# nothing else", "warns: no voxel spacing; 1 mm counts"),
        (LPS.replace("3.875", "3875"), "warns: no CT has voxels of 3875 x 3875 x 15 mm"),
        (LPS.replace("(0,3.875,0)", "(0,0,0)"), "refused: spacing is 3.875 x 0 x 15 mm"),
        (f"{LPS}\ndata file: nowhere.raw", "refused: nowhere.raw"),
    ],
)
def test_big_endian_nrrd(tmp_path, geometry, expected):
    header = f"NRRD0005\ntype: short\ndimension: 3\nsizes: 96 96 14\nendian: big\nencoding: raw\n{geometry}\n\n"
    path = tmp_path / ("ct.nhdr" if "data file" in geometry else "ct.nrrd")
    path.write_bytes(header.encode() + hu().astype(">i2").tobytes())
    comes_to(path, expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "right"),
        ("ElementSpacing", "warns: no voxel spacing; 1 mm counts"),
        ("TransformMatrix", "warns: no orientation"),
    ],
)
def test_metaimage_that_leaves_something_open(tmp_path, line, expected):
    sitk.WriteImage(phantom().ct, str(tmp_path / "ct.mhd"))
    lines = (tmp_path / "ct.mhd").read_text().splitlines(keepends=True)
    (tmp_path / "ct.mhd").write_text("".join(one for one in lines if not line or not one.startswith(line)))
    comes_to(tmp_path / "ct.mhd", expected)


def _metal(array: np.ndarray) -> None:
    array[5, 40:44, 40:44] = 32767


def _round_field(padding: int) -> Callable[[np.ndarray], None]:
    """What lies outside a round field of view has one value."""
    y, x = np.mgrid[:96, :96] - 47.5

    def change(array: np.ndarray) -> None:
        array[:, np.hypot(y, x) > 48] = padding

    return change


@pytest.mark.parametrize("change", [_metal, *map(_round_field, (-2000, -2048, -3024, -32768, -1, 0))])
def test_values_that_real_scans_have_give_no_doubt(tmp_path, change):
    array = hu().copy()
    change(array)
    volume = read_volume(write_nifti(tmp_path / "ct.nii.gz", array))
    assert volume.warnings == ()
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), np.maximum(array, -1024))


@pytest.mark.parametrize(
    "name", ["a b/c d.nii.gz", "Übersicht 肝臓/ct é.nii.gz", "CT.NII.GZ", "1.2.840.nii", "ct#1%20.nii"]
)
def test_names(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    comes_to(write_nifti(tmp_path / name, hu()), "right")


@pytest.mark.parametrize(
    ("line", "other", "why"),
    [
        ("ElementDataFile = LOCAL", "ElementDataFile\0\0\xd0OCAL", "not that of a MetaImage file, or damaged"),
        ("ElementDataFile = LOCAL", "ElementDataFile = %s%s%s%n 1 9 1", "a pattern of names"),
        ("ElementType", "E" * 300, "not that of a MetaImage file, or damaged"),
        ("Offset = ", "Offset = \x01", "not that of a MetaImage file, or damaged"),
        (
            "AnatomicalOrientation",
            "Comment = " + "x" * 5000 + "\nAnatomicalOrientation",
            "not that of a MetaImage file",
        ),
    ],
)
def test_metaimage_headers_that_end_the_process_in_itk(tmp_path, line, other, why):
    sitk.WriteImage(phantom().ct, str(tmp_path / "ct.mha"))
    content = (tmp_path / "ct.mha").read_bytes()
    assert content.count(line.encode()) == 1
    (tmp_path / "ct.mha").write_bytes(content.replace(line.encode(), other.encode("latin-1")))
    comes_to(tmp_path / "ct.mha", f"refused: {why}")


@pytest.mark.parametrize("line", ["type: ", "sizes: 96 96 ", "space: ", ""])
@pytest.mark.parametrize("read", [read_volume, read_mask])
def test_nrrd_headers_that_end_the_process_in_itk(tmp_path, line, read):
    content = f"NRRD0005\n# {'x' * 9000}\ntype: short\ndimension: 3\n{line}{'[' * 5000}\nencoding: raw\n\n".encode()
    (tmp_path / "ct.nrrd").write_bytes(content + hu().tobytes())
    with pytest.raises(SAMMixError, match="a line without end"):
        read(tmp_path / "ct.nrrd")
