"""Slice data sets: every format, the choice of labelled slices, the split of patients."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.data.slices import SliceDataset, choose_labelled, read_slices, split_patients
from SAMMixLib.errors import SAMMixError


def write_npz(file: Path, n: int = 6, liver: range = range(2, 4), **more: np.ndarray) -> dict[str, np.ndarray]:
    """n slices of 16 x 16, numbered 0, 2, 4, ...; the slices ``liver`` have a mask of 1 and 2."""
    mask = np.zeros((n, 16, 16), np.uint8)
    mask[liver.start : liver.stop, 4:8, 4:8] = 1
    mask[liver.start : liver.stop, 5, 5] = 2
    image = np.random.default_rng(0).integers(0, 256, (n, 16, 16), np.uint8)
    arrays = {"image": image, "mask": mask, "slice": 2 * np.arange(n)} | more
    np.savez(file, **{key: array for key, array in arrays.items() if array is not None})
    return arrays


def write_scan(scan: Path, mask: Path | None, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1), seed: int = 0) -> np.ndarray:
    """A scan of 8 slices of 32 x 32 pixels, 2 x 0.75 x 0.75 mm, liver in slices 3 to 5."""
    array = np.random.default_rng(seed).integers(-1024, 1000, (8, 32, 32)).astype(np.int16)
    liver = np.zeros(array.shape, np.uint8)
    liver[3:6, 8:16, 4:12] = 1
    if mask is not None and mask.name.startswith("segmentation-"):  # LiTS has tumours
        liver[4, 10:12, 6:8] = 2
    for file, voxels in ((scan, array), (mask, liver)):
        if file is not None:
            image = sitk.GetImageFromArray(voxels)
            image.SetSpacing((0.75, 0.75, 2))
            image.SetDirection(direction)
            file.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(file))
    return array


def test_npz_folder(tmp_path):
    first = write_npz(tmp_path / "volume-001.npz")
    write_npz(tmp_path / "volume-002.npz", liver=range(0))
    dataset = read_slices(tmp_path, size=16)
    assert (len(dataset), dataset.patient_names()) == (12, ["volume-001", "volume-002"])
    assert (dataset.images.dtype, dataset.masks.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(dataset.images[:6], np.rint(-40 + first["image"] * (200 / 255)))
    np.testing.assert_array_equal(dataset.masks[:6], first["mask"] > 0)
    np.testing.assert_array_equal(dataset.labels, [False, False, True, True] + [False] * 8)
    np.testing.assert_array_equal(dataset.indices[:6], [0, 2, 4, 6, 8, 10])
    assert dataset.has_mask.all() and np.isnan(dataset.spacings).all()
    assert read_slices(tmp_path, 16, patients=["volume-002"]).patient_names() == ["volume-002"]


def test_uint8_stands_for_the_hu_range_and_other_types_for_hu(tmp_path):
    image = np.full((1, 16, 16), 255, np.uint8)
    write_npz(tmp_path / "a.npz", 1, range(0), image=image)
    assert read_slices(tmp_path / "a.npz", 16, hu_range=(0, 255)).images.max() == 255
    write_npz(tmp_path / "b.npz", 1, range(0), image=np.full((1, 16, 16), -700, np.int16))
    assert read_slices(tmp_path / "b.npz", 16).images.max() == -700


def test_patients_of_one_file_and_the_first_annotator_of_each_slice(tmp_path):
    write_npz(
        tmp_path / "a.npz",
        slice=np.array([7, 7, 8, 9, 9, 7]),
        patient=np.array([1, 1, 1, 1, 1, 2]),
        annotator=np.array([2, 1, 3, 1, 2, 2]),
        liver=range(1, 3),
    )
    dataset = read_slices(tmp_path / "a.npz", 16)
    assert list(zip(dataset.patients, dataset.indices, strict=True)) == [("1", 7), ("1", 8), ("1", 9), ("2", 7)]
    np.testing.assert_array_equal(dataset.labels, [True, True, False, False])


def test_the_middle_of_each_scan(tmp_path):
    write_npz(tmp_path / "a.npz", n=11)
    np.testing.assert_array_equal(read_slices(tmp_path, 16, middle=0.3).indices, [8, 10, 12])


def test_the_papers_hdf5_layout(tmp_path):
    hu = np.linspace(-160, 240, 16 * 16).reshape(16, 16)
    with h5py.File(tmp_path / "scan.hdf5", "w") as file:
        for k in (0, 1, 10):
            group = file.create_group(f"Slice{k}")
            group["Slice"] = ((hu + 3055) / (5811 + 3055)).astype(np.float16)
            group["Segmentation"] = np.where(hu > 100, k, 0).astype(np.int16)
            group.attrs.create("ImageLabel", min(k, 1), (1,), "int")
    dataset = read_slices(tmp_path, 16)
    np.testing.assert_array_equal(dataset.indices, [0, 1, 10])
    np.testing.assert_array_equal(dataset.labels, [False, True, True])
    np.testing.assert_array_equal(dataset.masks[2], hu > 100)
    assert np.abs(dataset.images[0] - hu).max() <= 2  # what float16 leaves
    assert dataset.patient_names() == ["scan"]


def test_lits_folder(tmp_path):
    array = write_scan(tmp_path / "volume-10.nii", tmp_path / "segmentation-10.nii")
    write_scan(tmp_path / "volume-2.nii.gz", tmp_path / "segmentation-2.nii.gz", seed=1)
    dataset = read_slices(tmp_path, size=16)
    assert list(dict.fromkeys(dataset.patients)) == ["volume-2", "volume-10"]
    ten = dataset.select(dataset.patients == "volume-10")
    np.testing.assert_array_equal(ten.labels, [False] * 3 + [True] * 3 + [False] * 2)
    np.testing.assert_allclose(ten.spacings, 1.5)
    turned = array[:, ::-1, ::-1]  # stored from the patient's left and back
    np.testing.assert_array_equal(ten.images, np.rint(turned.reshape(8, 16, 2, 16, 2).mean((2, 4), dtype=np.float32)))
    expected = np.zeros((16, 16))
    expected[8:12, 10:14] = 1
    np.testing.assert_array_equal(ten.masks[4], expected)


def test_totalsegmentator_folder(tmp_path):
    write_scan(tmp_path / "s0001" / "ct.nii.gz", tmp_path / "s0001" / "segmentations" / "liver.nii.gz")
    write_scan(tmp_path / "s0007" / "ct.nii.gz", tmp_path / "s0007" / "segmentations" / "liver.nii.gz")
    dataset = read_slices(tmp_path, size=16, middle=0.5)
    assert dataset.patient_names() == ["s0001", "s0007"]
    assert len(dataset) == 8 and dataset.labels.sum() == 6


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("x.nii.gz", "x_mask.nii.gz"),
        ("x.nii.gz", "x-mask.nii.gz"),
        ("x_ct.nii.gz", "x_liver.nii.gz"),
        ("x_img.nii.gz", "x_seg.nrrd"),
        ("x.mha", "x_segmentation.mha"),
    ],
)
def test_pairs_by_name(tmp_path, scan, mask):
    write_scan(tmp_path / scan, tmp_path / mask)
    for path in (tmp_path, tmp_path / scan):
        dataset = read_slices(path, size=16)
        assert dataset.patient_names() == ["x"] and dataset.masks.any() and dataset.has_mask.all()


def test_listed_pairs_of_one_name_are_different_patients(tmp_path):
    pairs = [(tmp_path / name / "ct.nii", tmp_path / name / "m.nii") for name in ("a", "b")]
    for pair in pairs:
        write_scan(*pair)
    assert read_slices(pairs, size=16).patient_names() == ["a-ct", "b-ct"]


def test_scans_without_mask_take_their_labels_from_the_table(tmp_path):
    write_scan(tmp_path / "x.nii.gz", None)
    with pytest.raises(SAMMixError, match=r"x\.nii\.gz: has no mask; .*labels\.csv"):
        read_slices(tmp_path, 16)
    (tmp_path / "labels.csv").write_text("patient,slice,label\nx,2,0\nx,3,1\n")
    dataset = read_slices(tmp_path, 16)
    np.testing.assert_array_equal(dataset.indices, [2, 3])
    np.testing.assert_array_equal(dataset.labels, [False, True])
    assert not dataset.has_mask.any() and not dataset.masks.any()
    (tmp_path / "labels.csv").write_text("patient,slice,label\nx,two,0\n")
    with pytest.raises(SAMMixError, match="correct it"):
        read_slices(tmp_path, 16)


def test_a_mask_of_another_grid_is_refused_by_name(tmp_path):
    write_scan(tmp_path / "x.nii.gz", tmp_path / "x_mask.nii.gz")
    write_scan(tmp_path / "y.nii.gz", None)
    small = sitk.GetImageFromArray(np.ones((8, 16, 16), np.uint8))
    sitk.WriteImage(small, str(tmp_path / "y_mask.nii.gz"))
    with pytest.raises(SAMMixError, match=r"y_mask\.nii\.gz for .*y\.nii\.gz"):
        read_slices(tmp_path, 16)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"image": None}, "no array 'image'"),
        ({"mask": np.zeros((6, 8, 8), np.uint8)}, "shapes do not fit"),
        ({"image": np.full((6, 16, 16), np.nan)}, "NaN"),
        ({"mask": None}, "has no mask"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, more, complaint):
    write_npz(tmp_path / "a.npz", **more)
    with pytest.raises(SAMMixError, match=rf"a\.npz: .*{complaint}"):
        read_slices(tmp_path, 16)


@pytest.mark.parametrize("name", ["a.npz", "a.hdf5"])
@pytest.mark.parametrize("content", [b"", b"no slices"])
def test_files_that_are_not_what_they_say(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SAMMixError, match=name):
        read_slices(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(SAMMixError, match="no slices found"):
        read_slices(tmp_path)
    with pytest.raises(SAMMixError, match="no such file"):
        read_slices(tmp_path / "absent")
    write_npz(tmp_path / "a.npz")
    with pytest.raises(SAMMixError, match="no slices of patient b"):
        read_slices(tmp_path, 16, patients=["a", "b"])
    with pytest.raises(SAMMixError, match="middle is 0"):
        read_slices(tmp_path, 16, middle=0)


def dataset_of(counts: dict[str, int]) -> SliceDataset:
    """For each patient ``counts`` slices with liver and as many without."""
    patients = np.repeat(list(counts), [2 * n for n in counts.values()])
    n = len(patients)
    blank = np.zeros((n, 4, 4), np.uint8)
    labels = np.concatenate([np.arange(2 * count) < count for count in counts.values()])
    return SliceDataset(
        blank.astype(np.int16), labels, blank, np.full(n, True), patients, np.arange(n), np.full((n, 2), np.nan)
    )


def test_labelled_slices_are_spread_over_the_patients():
    dataset = dataset_of({"a": 20, "b": 2, "c": 20, "d": 20})
    chosen = choose_labelled(dataset, 14, seed=3)
    assert dataset.labels[chosen].all() and len(set(chosen)) == 14
    names, counts = np.unique(dataset.patients[chosen], return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {"a": 4, "b": 2, "c": 4, "d": 4}
    np.testing.assert_array_equal(chosen, choose_labelled(dataset, 14, seed=3))
    assert list(chosen) != list(choose_labelled(dataset, 14, seed=4))
    assert set(choose_labelled(dataset, 5, seed=3)) <= set(chosen)


def test_labelled_slices_have_a_mask():
    dataset = dataset_of({"a": 3})
    dataset.has_mask[0] = False
    assert set(choose_labelled(dataset, 2, seed=0)) == {1, 2}
    with pytest.raises(SAMMixError, match="2 have liver"):
        choose_labelled(dataset, 3, seed=0)


def test_select_and_concatenate():
    dataset = dataset_of({"a": 2, "b": 3})
    both = SliceDataset.concatenate([dataset.select(dataset.patients == "b"), dataset.select([0])])
    assert len(both) == 7 and both.indices[-1] == 0 and both.patient_names() == ["a", "b"]
    assert len(dataset.select([])) == 0


def test_split_patients():
    names = [f"p{n:02}" for n in range(20)]
    split = split_patients(names, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=1)
    assert [len(part) for part in split.values()] == [14, 2, 4]
    assert sorted(name for part in split.values() for name in part) == names
    assert split == split_patients(reversed(names), {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=1)
    assert split != split_patients(names, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=2)
    assert [len(part) for part in split_patients(names, {"train": 10, "test": 5}, seed=0).values()] == [10, 5]
    with pytest.raises(SAMMixError, match="more than the 20 patients"):
        split_patients(names, {"train": 21}, seed=0)


def test_real_lits_slices(shared_data):
    dataset = read_slices(shared_data / "lits", patients=["volume-000", "volume-022"])
    assert dataset.images.shape == (153, 256, 256) and dataset.labels.sum() == 37
    assert (dataset.images.min(), dataset.images.max()) == (-40, 160)


def test_real_volumes_beside_masks_without_scan(shared_data):
    dataset = read_slices(shared_data / "volumes", patients=["chaos_ct3"])
    assert len(dataset) == 78 and dataset.images.min() == -1000
    millilitres = dataset.masks.sum() * np.prod(dataset.spacings[0].astype(float)) * 2 / 1000
    assert millilitres == pytest.approx(1417, rel=0.01)  # pixels covered by half count, so a little more
