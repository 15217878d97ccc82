"""No output destroys anything: inputs by whatever name, files that are not ours, what is protected or no file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.imaging.writing import WRITABLE, check_output, check_output_folder, is_ours, write_mask, write_scan

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links, modes and pipes of POSIX")
MASK = sitk.GetImageFromArray((np.arange(60).reshape(3, 4, 5) % 2).astype(np.uint8))


@pytest.fixture
def scan(tmp_path) -> Path:
    path = tmp_path / "ct.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray((np.arange(60).reshape(3, 4, 5) * 30 - 1000).astype(np.int16)), str(path))
    return path


def refusal(path: Path, **options) -> str:
    before = path.read_bytes() if os.path.isfile(path) else None
    with pytest.raises(SAMMixError) as caught:
        check_output(path, **options)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert before == (path.read_bytes() if os.path.isfile(path) else None)
    return str(caught.value)


@POSIX
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_replaced_by_whatever_name(scan, overwrite):
    options = {"overwrite": overwrite, "inputs": [scan]}
    link, hard, folder = scan.with_name("link.nii.gz"), scan.with_name("hard.nii.gz"), scan.parent / "folder"
    link.symlink_to(scan)
    os.link(scan, hard)
    folder.symlink_to(scan.parent)
    for path in (scan, link, hard, folder / scan.name, scan.parent / ".." / scan.parent.name / scan.name):
        assert "is the input itself" in refusal(path, **options)
    assert "is the input itself" in refusal(scan, overwrite=overwrite, inputs=[link])


def test_another_case_on_a_disk_that_is_blind_to_it(scan, monkeypatch):
    """There both names are one inode, so identity finds it."""
    other = scan.with_name("CT.nii.gz")
    if not other.exists():
        os.link(scan, other)
    assert "is the input itself" in refusal(other, overwrite=True, inputs=[scan])


def test_files_in_an_input_folder_are_not_replaced(tmp_path):
    (tmp_path / "dicom" / "a").mkdir(parents=True)
    write_mask(MASK, tmp_path / "dicom" / "a" / "mask.nrrd")
    message = refusal(tmp_path / "dicom" / "a" / "mask.nrrd", overwrite=True, inputs=[tmp_path / "dicom"])
    assert "is a file of the input folder" in message
    check_output(tmp_path / "dicom" / "new.nrrd", inputs=[tmp_path / "dicom"])
    with pytest.raises(SAMMixError, match="is the input folder itself"):
        check_output_folder(tmp_path / "dicom", [tmp_path / "dicom"])


@pytest.mark.parametrize("suffix", WRITABLE)
def test_only_masks_of_ours_are_replaced_without_a_word(tmp_path, suffix):
    ours, other = tmp_path / f"ours{suffix}", tmp_path / f"other{suffix}"
    write_mask(MASK, ours)
    sitk.WriteImage(MASK, str(other))
    assert is_ours(ours) and not is_ours(other)
    check_output(ours)
    assert "not written by SAMMix" in refusal(other)
    check_output(other, overwrite=True)
    write_mask(MASK, ours)
    with pytest.raises(SAMMixError, match="--overwrite"):
        write_mask(MASK, other)
    write_mask(MASK, other, overwrite=True)
    assert is_ours(other)


def test_a_scan_written_by_us_keeps_its_voxels(tmp_path, scan):
    image = read_volume(scan).image
    for suffix in WRITABLE:
        if suffix != ".seg.nrrd":
            write_scan(image, tmp_path / f"copy{suffix}")
            write_scan(image, tmp_path / f"copy{suffix}")
            copy = read_volume(tmp_path / f"copy{suffix}").image
            assert np.array_equal(sitk.GetArrayFromImage(copy), sitk.GetArrayFromImage(image))


@POSIX
def test_protected_files_pipes_and_links_to_nothing(tmp_path):
    protected, pipe, link = tmp_path / "a.nrrd", tmp_path / "b.nrrd", tmp_path / "c.nrrd"
    write_mask(MASK, protected)
    protected.chmod(0o444)
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nothing.nrrd")
    for path, words in ((protected, "write-protected"), (pipe, "no regular file"), (link, "link to nothing")):
        for overwrite in (False, True):
            assert words in refusal(path, overwrite=overwrite)
    with pytest.raises(SAMMixError, match="no regular file"):
        check_output(Path("/dev/null.nrrd") if Path("/dev/null.nrrd").exists() else pipe)


@POSIX
@pytest.mark.parametrize("suffix", WRITABLE)
def test_long_names_are_written_or_refused_before_any_work(tmp_path, suffix):
    longest = "a" * (255 - len(suffix)) + suffix
    write_mask(MASK, tmp_path / longest)
    umlauts = "ä" * ((255 - len(suffix)) // 2) + suffix
    write_mask(MASK, tmp_path / umlauts)
    assert {path.name for path in tmp_path.iterdir()} == {longest, umlauts}
    assert "too long" in refusal(tmp_path / ("a" + longest))
    assert "too long" in refusal(tmp_path / ("ä" + umlauts))


@POSIX
@pytest.mark.parametrize("suffix", WRITABLE)
def test_names_that_are_not_utf8(tmp_path, suffix):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfcber"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk takes no such name")
    path = Path(os.fsdecode(os.fsencode(folder) + b"/m\xe4sk" + suffix.encode()))
    write_mask(MASK, path)
    assert is_ours(path) and [file.name for file in folder.iterdir()] == [path.name]
    if suffix != ".seg.nrrd":
        scan = path.with_name(os.fsdecode(b"sc\xe4n") + suffix)
        write_scan(sitk.GetImageFromArray((np.arange(60).reshape(3, 4, 5) * 30 - 1000).astype(np.int16)), scan)
        assert read_volume(scan).image.GetSize() == (5, 4, 3)
