"""A PACS-like export: two patients, localizer, dose report, phases, kernels; one series of each study is chosen."""

# ruff: noqa: E402
from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra [cohort] is not installed")
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from SAMMixLib.cohort.engine import reading
from SAMMixLib.cohort.manifest import scans_of
from SAMMixLib.cohort.pacs import Export
from SAMMixLib.errors import SAMMixError


def write_series(folder: Path, patient: str, study: str, number: int, **facts) -> str:
    """One series of small images; `facts` are attributes, and ``count``, ``step``, ``name`` of its files."""
    count, step, name = facts.pop("count", 40), facts.pop("step", 5.0), facts.pop("name", "IM{:05}")
    uid = facts.pop("SeriesInstanceUID", generate_uid(entropy_srcs=[patient, study, str(number)]))
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
        image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID = patient, study, uid
        image.SeriesNumber, image.Modality, image.ImageType = number, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, k * step], [1, 0, 0, 0, 1, 0]
        image.SliceThickness, image.PixelSpacing, image.ConvolutionKernel = step, [4.0, 4.0], "B30f"
        image.Rows = image.Columns = 16
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = (np.arange(256).reshape(16, 16) * 4 - 900 + number).astype("<i2").tobytes()
        for key, value in facts.items():
            setattr(image, key, value)
        image.save_as(folder / name.format(100 * number + k), enforce_file_format=True)
    return uid


@pytest.fixture
def export(tmp_path) -> tuple[Path, dict[str, str]]:
    """Everything of the first patient in one flat folder, the second patient's in folders of their own."""
    flat, other = tmp_path / "in" / "DICOM" / "0001", tmp_path / "in" / "B"
    made = {
        "scout": write_series(flat, "A", "1.2.1", 1, count=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "dose": write_series(flat, "A", "1.2.1", 99, count=1, Modality="SR"),
        "art": write_series(flat, "A", "1.2.1", 2, SeriesDescription="Abdomen arteriell 5.0"),
        "ven": write_series(flat, "A", "1.2.1", 3, SeriesDescription="Abdomen venoes 5.0"),
        "sharp": write_series(flat, "A", "1.2.1", 4, SeriesDescription="Abdomen venoes", ConvolutionKernel="B70f"),
        "cor": write_series(flat, "A", "1.2.1", 5, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "bolus": write_series(flat, "A", "1.2.1", 6, count=12, step=0.0),
        "short": write_series(flat, "A", "1.2.1", 7, count=3),
        "mr": write_series(flat, "A", "1.2.1", 8, Modality="MR", SeriesDescription="Abdomen venoes"),
        "capture": write_series(
            flat,
            "A",
            "1.2.1",
            9,
            count=9,
            ImageType=["DERIVED", "SECONDARY"],
            ImagePositionPatient=None,
            SeriesDescription="Abdomen venoes",
        ),
        "head": write_series(other / "h", "B", "1.2.2", 1, BodyPartExamined="HEAD"),
        "chest": write_series(other / "c", "B", "1.2.2", 2, BodyPartExamined="CHEST"),
        "abd": write_series(other / "a", "B", "1.2.2", 3, BodyPartExamined="ABDOMEN"),
    }
    (flat / "readme.txt").write_text("no DICOM")
    (tmp_path / "out").mkdir()
    return tmp_path, made


def walk(folder: Path):
    notes = Export(folder / "out" / "notes.sqlite")
    found = list(scans_of(folder / "in", folder / "out", notes))
    left = {row["series"]: row["reason"] for row in notes.left_out()}
    notes.close()
    return found, left


@pytest.mark.slow
def test_right_series_chosen_and_the_others_named_with_reasons(export):
    folder, made = export
    found, left = walk(folder)
    assert {(entry.patient, entry.series) for entry in found} == {("A", made["ven"]), ("B", made["abd"])}
    assert {entry.name for entry in found if entry.patient == "B"} == {"B/a"}
    says = {
        "scout": "localizer", "dose": "modality is SR", "art": "has the arterial phase, not the portal venous phase",
        "sharp": "sharp kernel B70f", "cor": "not axial", "bolus": "at one place", "short": "3 image(s)",
        "mr": "modality is MR", "capture": "secondary capture",
        "head": "body part is HEAD", "chest": "has the chest, not the abdomen",
    }  # fmt: skip
    assert set(left) == {made[name] for name in says}
    for name, words in says.items():
        assert words in left[made[name]], (name, left[made[name]])


@pytest.mark.slow
def test_a_series_strewn_over_a_flat_folder_is_read_alone(export):
    folder, _ = export
    entry = next(one for one in walk(folder)[0] if one.patient == "A")
    with reading(entry) as volume:
        assert volume.image.GetSize() == (16, 16, 40)
        assert volume.image.GetPixel(0, 0, 0) == -900 + 3
        assert volume.path == Path(entry.path)


@pytest.mark.slow
def test_a_second_walk_reads_no_header_again_and_forgets_what_is_gone(export, monkeypatch):
    folder, made = export
    walk(folder)
    monkeypatch.setattr("pydicom.dcmread", lambda *_args, **_more: pytest.fail("read again"))
    for file in sorted((folder / "in" / "B" / "a").iterdir()):
        os.unlink(file)
    assert {entry.series for entry in walk(folder)[0]} == {made["ven"], made["chest"]}


def test_series_without_uids_are_told_apart_by_folder_and_words(tmp_path):
    (tmp_path / "out").mkdir()
    for number in (1, 2):
        write_series(tmp_path / "in" / "x", "", "", number, SeriesInstanceUID="", SeriesDescription=f"s{number}")
    found, left = walk(tmp_path)
    assert [len(entry.files) for entry in found] == [40] and len(left) == 1
    assert found[0].series == found[0].study == "" and found[0].patient == "x"


def test_files_without_preamble_and_a_damaged_one(tmp_path):
    """As old archives keep them: no preamble, no group of the file itself, and no extension."""
    write_series(tmp_path / "in", "A", "1.2.1", 1, name="{}")
    for path in (tmp_path / "in").iterdir():
        content = path.read_bytes()[132:]
        path.write_bytes(content[12 + int.from_bytes(content[8:12], "little") :])
    (tmp_path / "in" / "x.dcm").write_bytes(content[:300] + b"\xff" * 40)
    (entry,) = scans_of(tmp_path / "in", tmp_path / "out", Export(tmp_path / "notes.sqlite"))
    with reading(entry) as volume:
        assert volume.image.GetSize() == (16, 16, 40)


@pytest.mark.slow
def test_a_series_exported_twice_is_one(export):
    folder, made = export
    shutil.copytree(folder / "in" / "B" / "a", folder / "in" / "again" / "x")
    (entry,) = (entry for entry in walk(folder)[0] if entry.patient == "B")
    assert entry.series == made["abd"] and len(entry.files) == 40
    with reading(entry) as volume:
        assert volume.image.GetSize() == (16, 16, 40)


@pytest.mark.slow
def test_notes_of_an_earlier_version_are_read_again(export):
    folder, _ = export
    found, _ = walk(folder)
    notes = sqlite3.connect(folder / "out" / "notes.sqlite")
    notes.executescript("ALTER TABLE file DROP COLUMN instance; PRAGMA user_version = 0;")
    notes.close()
    assert walk(folder)[0] == found


@pytest.mark.slow
def test_notes_on_a_full_disk_are_one_line(export):
    folder, _ = export
    notes = Export(folder / "out" / "notes.sqlite")
    notes._notes.execute("PRAGMA max_page_count = 1")
    with pytest.raises(SAMMixError, match=r"full.*free some disk space"):
        list(scans_of(folder / "in", folder / "out", notes))
