"""NIfTI as the standard says it: forms, codes, units, versions; and masks that every program lays on their scan."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
from odd_files import hu, phantom, to_ras, write_nifti

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import RAS_TO_LPS, AxialGrid
from SAMMixLib.imaging.nifti import NIFTI2
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.imaging.writing import write_mask


def reads_as_the_phantom(path: Path) -> tuple[str, ...]:
    """The warnings of a file whose voxels and grid must be the phantom's."""
    volume = read_volume(path)
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), hu())
    assert volume.grid.apart_from(AxialGrid.of(phantom().ct)) < 0.05
    return volume.warnings


def sheared(by: float) -> np.ndarray:
    affine = to_ras(phantom().ct)
    affine[0, 2] += by * affine[2, 2]
    return affine[:3]


@pytest.mark.parametrize(("by", "warned"), [(1e-6, False), (5e-5, False), (0.0002, True), (0.0005, True)])
def test_shear_at_rounding_level_is_read(tmp_path, by, warned):
    warnings = reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), srow=sheared(by)))
    assert len(warnings) == warned and all("sheared" in warning for warning in warnings)


@pytest.mark.parametrize("by", [0.005, 0.1, 0.4])
def test_true_shear_is_refused_by_name(tmp_path, by):
    with pytest.raises(SAMMixError, match=r"sheared by .* degrees \(gantry tilt\)"):
        read_volume(write_nifti(tmp_path / "ct.nii.gz", hu(), srow=sheared(by)))


@pytest.mark.parametrize("steps", [(1, 1, 1), (0, 0, 0), (np.nan, 1, 1), (2.0, 3.875, 15.0)])
def test_the_sform_rules_and_a_pixdim_against_it_is_named(tmp_path, steps):
    path = write_nifti(tmp_path / "ct.nii.gz", hu(), pixdim=[1, *steps, 1, 1, 1, 1])
    (warning,) = reads_as_the_phantom(path)
    assert "pixdim" in warning and "the sform counts" in warning


def test_negative_steps_beside_a_good_affine(tmp_path):
    steps = np.negative(phantom().ct.GetSpacing())
    assert reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), pixdim=[1, *steps, 1, 1, 1, 1])) == ()


QFORM = {"qform_code": 1, "quatern": (0, 0, 1), "qoffset": to_ras(phantom().ct)[:3, 3]}  # half a turn about z


def test_the_qform_rules_where_it_is_alone(tmp_path):
    path = write_nifti(tmp_path / "ct.nii.gz", hu(), sform_code=0, srow=0, **QFORM)
    assert reads_as_the_phantom(path) == ()
    assert reads_as_the_phantom(write_nifti(tmp_path / "both.nii.gz", hu(), **QFORM)) == ()


def test_left_and_right_that_contradict_each_other_are_named(tmp_path):
    mirrored = to_ras(phantom().ct)
    mirrored[0] *= -1
    path = write_nifti(tmp_path / "ct.nii.gz", hu(), srow=mirrored[:3], **QFORM)
    (warning,) = read_volume(path).warnings
    assert "left and right" in warning
    moved = to_ras(phantom().ct)
    moved[2, 3] += 40
    (warning,) = read_volume(write_nifti(tmp_path / "moved.nii.gz", hu(), srow=moved[:3], **QFORM)).warnings
    assert "2.7 voxels apart" in warning


@pytest.mark.parametrize(("code", "factor"), [(1, 1e-3), (2, 1.0), (3, 1e3), (10, 1.0)])
def test_units(tmp_path, code, factor):
    scale = np.diag([factor, factor, factor, 1.0])
    steps = np.multiply(phantom().ct.GetSpacing(), factor)
    fields = {"srow": (scale @ to_ras(phantom().ct))[:3], "pixdim": [1, *steps, 1, 1, 1, 1], "xyzt_units": code}
    assert reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), **fields)) == ()


@pytest.mark.parametrize("code", [1, 3])
def test_units_that_no_ct_has_are_named(tmp_path, code):
    (warning,) = reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), xyzt_units=code))
    assert "metres" in warning and "count as mm" in warning


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [None, NIFTI2])
def test_versions_and_byte_orders(tmp_path, order, layout):
    more = {} if layout is None else {"layout": layout}
    assert reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), order=order, **more)) == ()


@pytest.mark.parametrize(("name", "packed"), [("ct.nii", True), ("ct.nii.gz", False), ("CT.NII.GZ", True)])
def test_gzip_whatever_the_suffix_says(tmp_path, name, packed):
    assert reads_as_the_phantom(write_nifti(tmp_path / name, hu(), packed=packed)) == ()


def test_one_more_axis_of_length_1(tmp_path):
    assert reads_as_the_phantom(write_nifti(tmp_path / "ct.nii.gz", hu(), dim=[4, 96, 96, 14, 1, 1, 1, 1])) == ()


def test_slope_and_intercept(tmp_path):
    stored = ((hu().astype(int) + 1024) // 2).astype(np.uint16)
    path = write_nifti(tmp_path / "ct.nii.gz", stored, scl_slope=2, scl_inter=-1024)
    assert np.abs(sitk.GetArrayFromImage(read_volume(path).image) - hu()).max() <= 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"magic": b"ni1"}, r"a pair of \.hdr and \.img"),
        ({"magic": b"xyz"}, "ANALYZE 7.5 file or a damaged header"),
        ({"dim": [3, 0, 96, 14, 1, 1, 1, 1]}, "sizes in its header are not valid"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "too many"),
        ({"dim": [3, 9600, 960, 14, 1, 1, 1, 1]}, "truncated: 258048 of 258048000 bytes"),
        ({"datatype": 99}, "voxel type 99"),
        ({"datatype": 1}, "single bits"),
        ({"srow": np.nan}, "orientation in the header is not valid"),
    ],
)
def test_refused_with_the_true_reason(tmp_path, fields, why):
    with pytest.raises(SAMMixError, match=why):
        read_volume(write_nifti(tmp_path / "ct.nii.gz", hu(), **fields))


@st.composite
def headers(draw) -> dict:
    """Forms, codes and units apart from each other, as no sane program writes them."""
    turns = [Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True) for _ in "qs"]
    steps = [draw(st.tuples(*[st.floats(0.3, 6.0)] * 3)) for _ in "qs"]
    mirror = [draw(st.sampled_from([-1, 1])) for _ in "qs"]
    unit = draw(st.sampled_from([0, 1, 2, 3, 10]))
    factor = {1: 1e-3, 3: 1e3}.get(unit, 1.0)
    b, c, d, a = turns[0].as_quat()
    srow = np.zeros((3, 4))
    srow[:, :3] = turns[1].as_matrix() * steps[1] * [1, 1, mirror[1]] * factor
    srow[:, 3] = np.multiply(draw(st.tuples(*[st.floats(-900, 900)] * 3)), factor)
    forms = draw(st.sampled_from([(0, 1), (1, 0), (1, 1), (2, 1), (1, 2), (4, 4), (0, 4), (3, 0)]))
    return {
        "qform_code": forms[0],
        "sform_code": forms[1],
        "quatern": np.array([b, c, d]) * (-1 if a < 0 else 1),
        "qoffset": np.multiply(draw(st.tuples(*[st.floats(-900, 900)] * 3)), factor),
        "pixdim": [mirror[0], *np.multiply(steps[0], factor), 1, 1, 1, 1],
        "srow": srow,
        "xyzt_units": unit,
    }


@pytest.mark.slow
@given(fields=headers())
@settings(max_examples=1000, deadline=None)
def test_every_program_lays_the_mask_on_its_scan(fields):
    array = (np.arange(60, dtype=np.int16) * 30 - 1000).reshape(3, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        scan = write_nifti(Path(folder) / "scan.nii", array, **fields)
        volume = read_volume(scan)
        stack = volume.axial()
        mask = Path(folder) / "mask.nii"
        write_mask(stack.to_grid(stack.array > 0), mask)
        one, other = nibabel.load(scan), nibabel.load(mask)
        assert np.array_equal(one.affine, other.affine)
        assert np.array_equal(other.dataobj, np.asarray(one.dataobj) > 0)
        if fields["sform_code"] or fields["qform_code"]:
            factor = {1: 1e3, 3: 1e-3}.get(fields["xyzt_units"], 1.0)
            expected = RAS_TO_LPS @ np.diag([factor, factor, factor, 1]) @ one.affine
            # Near half a turn the quaternion in single precision leaves a few thousandths of a radian open.
            np.testing.assert_allclose(
                volume.grid.affine, expected, rtol=1e-3, atol=1e-3 if fields["sform_code"] else 0.02
            )
        for key in ("qform_code", "sform_code", "xyzt_units", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
            assert np.array_equal(one.header[key], other.header[key])
        by_itk = [sitk.ReadImage(str(path)) for path in (scan, mask)]
        for get in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
            assert get(by_itk[0]) == get(by_itk[1])
