"""A DICOM export in whatever layout a PACS gives: its files noted on disk, one CT series chosen of each study.

Nothing is taken from names of files and folders. The notes stand in an SQLite file, so that memory does not grow with
the export, and a second run reads no header again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.dicom import is_dicom, parse, quiet_pydicom

TAGS = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "BodyPartExamined", "ConvolutionKernel", "SliceThickness", "NumberOfFrames", "ProtocolName", "StudyDescription",
    "ContrastBolusAgent", "ImagePositionPatient", "ImageOrientationPatient", "SOPInstanceUID",
)  # fmt: skip
NOTES_VERSION = 2  # older notes are forgotten, and the headers read again
LIKE = ("Modality", "SeriesNumber", "SeriesDescription", "ImageType")
OF_SERIES = ("study", "uid", "patient", "number", "modality", "description", "kernel", "body_part", "words", "kind",
             "thickness", "frames", "contrast")  # fmt: skip
LEFT_COLUMNS = ("patient", "study", "series", "number", "description", "modality", "images", "reason")
WITHOUT_UID = "none:"  # before what stands for a UID that careless anonymisation has emptied
DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a medium's DICOMDIR
LEAST_IMAGES = 8
LARGEST_STEP = 10.0  # mm between slices: beyond it a liver has too few
NEAR_AXIAL = 0.8  # cosine between the slice normal and the patient's long axis
WHOLE_LIVER = 120.0  # mm along z that a series should cover

RECONSTRUCTIONS = {
    "MPR",
    "MIP",
    "MINIP",
    "PROJECTION IMAGE",
    "VRT",
    "SCREEN SAVE",
    "PERFUSION",
    "SUBTRACT",
    "DOSE_INFO",
}
ELSEWHERE = ("HEAD", "BRAIN", "SKULL", "NECK", "CSPINE", "EXTREMITY", "KNEE", "ANKLE", "FOOT", "HAND", "SHOULDER",
             "ELBOW", "SINUS", "DENTAL", "JAW")  # fmt: skip
ABDOMEN = ("ABD", "LIVER", "LEBER", "FOIE", "HEPAT", "BELLY", "CAP", "TAP")
CHEST = ("CHEST", "THORAX", "LUNG", "CARDIAC", "HEART", "COR")
PHASES = (  # better ones first; the words that series are named by
    ("portal venous phase", r"\b(portal|ven|venous|venoes|pv|pvp|portven\w*)\b|venous|70 ?s"),
    ("phase not named", None),
    ("late phase", r"\b(delay\w*|late|excret\w*|spaet|equilibrium)\b"),
    ("arterial phase", r"\b(art|arterial|arteriell|angio|cta)\b|arterial"),
    ("without contrast", r"\b(native?|nativ|non.?con\w*|unenhanced|plain|w/?o|ohne|nc)\b"),
)
SOFT = r"^(B[rfvq]?[1-4]\d|I[1-4]\d|Br\d|STANDARD|SOFT|FC0\d|FC1\d|[ABC]$)"
SHARP = r"^(B[rlf]?[5-9]\d|I[5-9]\d|Bl\d|LUNG|BONE|EDGE|DETAIL|CHST|FC[358]\d|YA|YB|[DEL]$)"


@dataclass(frozen=True)
class Series:
    """One series of an export: what its first header and the places of its images say."""

    study: str
    uid: str
    patient: str
    number: str
    modality: str
    description: str
    kernel: str
    body_part: str
    words: str  # description, protocol and study in capitals
    kind: str  # ImageType
    thickness: float | None  # mm
    frames: int
    contrast: str
    files: tuple[str, ...]
    places: tuple[float | None, ...]  # mm along the slice normal, one for each file; None: no position
    upright: float  # cosine between the slice normal and z; 0 without orientation
    alone: bool = True  # no other series has files in its folder

    @property
    def short(self) -> str:
        return hashlib.sha256(self.uid.encode()).hexdigest()[:8]

    @cached_property
    def folder(self) -> str:
        return os.path.commonpath([os.path.dirname(file) for file in self.files])

    @property
    def known_uid(self) -> str:
        """The UID, empty where the files have none."""
        return "" if self.uid.startswith(WITHOUT_UID) else self.uid

    @property
    def title(self) -> str:
        return f"{self.number or '-'}" + (f" '{self.description}'" if self.description else "")

    @cached_property
    def steps(self) -> np.ndarray:
        """mm between neighbouring places of images."""
        known = sorted(place for place in self.places if place is not None)
        return np.diff(np.array(known)) if len(known) > 1 else np.zeros(0)

    @property
    def extent(self) -> float:
        return float(self.steps.sum())


@dataclass(frozen=True)
class Left:
    """A series that is not segmented, and why."""

    series: Series
    reason: str


class Export:
    """The headers of a DICOM export, noted in an SQLite file."""

    def __init__(self, notes: Path) -> None:
        self._path = notes
        try:
            self._notes = sqlite3.connect(notes, check_same_thread=False)
            if self._notes.execute("PRAGMA user_version").fetchone()[0] != NOTES_VERSION:
                tables = "".join(f"DROP TABLE IF EXISTS {table};" for table in ("file", "series", "left_out"))
                self._notes.executescript(f"{tables} PRAGMA user_version = {NOTES_VERSION};")
            self._notes.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
                "CREATE TABLE IF NOT EXISTS file (path TEXT PRIMARY KEY, bytes INT, changed INT, seen INT, uid TEXT,"
                " instance TEXT, folder TEXT, place REAL, upright REAL);"
                f"CREATE TABLE IF NOT EXISTS series ({', '.join(OF_SERIES)}, PRIMARY KEY (uid));"
                f"CREATE TABLE IF NOT EXISTS left_out ({', '.join(LEFT_COLUMNS)});"
                "CREATE INDEX IF NOT EXISTS by_uid ON file (uid);"
                "CREATE INDEX IF NOT EXISTS by_folder ON file (folder);"
                "CREATE INDEX IF NOT EXISTS by_study ON series (study);"
                "DELETE FROM left_out; UPDATE file SET seen = 0;"
            )
        except sqlite3.Error as error:
            raise SAMMixError(f"{notes}: cannot be written ({error}); remove it and run again") from None

    def note(self, file: os.DirEntry) -> None:
        """Note one file; one that is no DICOM is passed over, one that was noted before is not read again."""
        facts = file.stat()
        row = self._execute("SELECT bytes, changed FROM file WHERE path = ?", (file.path,)).fetchone()
        if row == (facts.st_size, facts.st_mtime_ns):
            self._execute("UPDATE file SET seen = 1 WHERE path = ?", (file.path,))
            return
        header = _header(file.path)
        if header is None:
            return
        normal, place = _place(header)
        folder = os.path.dirname(file.path)
        facts_of_series, instance = _facts(header, folder), str(header.get("SOPInstanceUID") or file.path)
        self._execute(
            "INSERT OR REPLACE INTO file VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)",
            (file.path, facts.st_size, facts.st_mtime_ns, facts_of_series["uid"], instance, folder, place, normal),
        )
        columns = ", ".join(OF_SERIES)
        marks = ", ".join("?" * len(OF_SERIES))
        self._execute(
            f"INSERT OR IGNORE INTO series ({columns}) VALUES ({marks})", [facts_of_series[key] for key in OF_SERIES]
        )

    def chosen(self) -> Iterator[Series]:
        """The one series of each study to segment. The others are handed to :meth:`leave`."""
        self._execute("DELETE FROM file WHERE seen = 0")
        self._execute("COMMIT")
        studies = self._execute(
            "SELECT DISTINCT study FROM series WHERE uid IN (SELECT uid FROM file) ORDER BY patient, study"
        )
        for (study,) in studies:
            chosen, left = choose(self.series_of(study))
            for one in left:
                self.leave(one)
            if chosen is not None:
                yield chosen

    def series_of(self, study: str) -> list[Series]:
        """The series of a study that have files, by number; an image that was exported twice counts once."""
        found = []
        rows = self._execute(f"SELECT {', '.join(OF_SERIES)} FROM series WHERE study = ?", (study,)).fetchall()
        for row in rows:
            facts = dict(zip(OF_SERIES, row, strict=True))
            files = self._execute(
                "SELECT MIN(path), place, upright, folder FROM file WHERE uid = ? GROUP BY instance ORDER BY MIN(path)",
                (facts["uid"],),
            ).fetchall()
            if files:
                paths, places, upright, folders = zip(*files, strict=True)
                series = Series(**facts, files=paths, places=places, upright=min(upright))
                found.append(Series(**facts, files=paths, places=places, upright=min(upright),
                                    alone=self._alone(series.uid, set(folders) | {series.folder})))  # fmt: skip
        return sorted(found, key=lambda one: (len(one.number), one.number, one.uid))

    def leave(self, left: Left) -> None:
        """Keep why a series was left, for the table beside the results."""
        one = left.series
        row = (one.patient, one.study, one.uid, one.number, one.description, one.modality, len(one.files), left.reason)
        self._execute("INSERT INTO left_out VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def left_out(self) -> Iterator[dict[str, Any]]:
        """The series that were left, a row of the table each."""
        for row in self._execute("SELECT * FROM left_out ORDER BY patient, study, number"):
            yield dict(zip(LEFT_COLUMNS, row, strict=True))

    def close(self) -> None:
        with suppress(sqlite3.Error):  # what is not noted is read again
            self._notes.commit()
        self._notes.close()

    def _execute(self, command: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._notes.execute(command, values)
        except sqlite3.Error as error:
            raise SAMMixError(
                f"{self._path}: cannot be written ({error}); free some disk space and run again"
            ) from None

    def _alone(self, uid: str, folders: set[str]) -> bool:
        marks = ", ".join("?" * len(folders))
        query = f"SELECT COUNT(DISTINCT uid) FROM file WHERE folder IN ({marks})"
        return self._execute(query, sorted(folders)).fetchone()[0] == 1


def choose(series: list[Series]) -> tuple[Series | None, list[Left]]:
    """The series of one study that shows the liver best, and why each of the others was left.

    First come the reasons for which a series cannot be segmented at all; then, one criterion after the other, which of
    the rest is better. The first criterion that differs from the chosen one's is the reason.
    """
    left = [Left(one, reason) for one in series if (reason := obstacle(one))]
    refused = {one.series.uid for one in left}
    fit = sorted((one for one in series if one.uid not in refused), key=lambda one: [rank for rank, _ in merits(one)])
    if not fit:
        return None, left
    best, others = fit[0], fit[1:]
    for other in others:
        pairs = zip(merits(best), merits(other), strict=True)
        words = next((f"{own[1]}, not {its[1]}" for its, own in pairs if its[0] != own[0]), "a later number")
        left.append(Left(other, f"series {best.title} was chosen: this one has {words}"))
    return best, left


def obstacle(one: Series) -> str:
    """Why a series cannot be segmented; empty where it can."""
    kinds = {part.strip().upper() for part in one.kind.split("\\")}
    flat = sum(step <= 0.01 for step in one.steps)
    elsewhere = next((part for part in ELSEWHERE if part in one.body_part.upper().replace(" ", "")), "")
    checks = (
        (one.modality != "CT", f"the modality is {one.modality or 'not given'}, not CT"),
        (one.frames > 1, "multi-frame (enhanced) CT is not read"),
        ("LOCALIZER" in kinds, "a scout (localizer) is no slice of a volume"),
        (bool(kinds & RECONSTRUCTIONS), f"a reconstruction ({', '.join(sorted(kinds & RECONSTRUCTIONS))})"),
        ("SECONDARY" in kinds and None in one.places, "a secondary capture without a place in the patient"),
        (len(one.files) < LEAST_IMAGES, f"{len(one.files)} image(s); a liver needs at least {LEAST_IMAGES}"),
        (None in one.places, "images without position and orientation"),
        (one.upright < NEAR_AXIAL, "not axial (a coronal, sagittal or oblique reformat)"),
        (len(one.steps) > 0 and flat == len(one.steps), "all images at one place (bolus tracking)"),
        (len(one.steps) > 0 and float(np.median(one.steps)) > LARGEST_STEP,
         f"slices {float(np.median(one.steps)) if len(one.steps) else 0:.3g} mm apart"),
        (bool(elsewhere), f"the body part is {one.body_part}"),
    )  # fmt: skip
    return next((reason for applies, reason in checks if applies), "")


def merits(one: Series) -> list[tuple[float, str]]:
    """Each criterion's rank, the lower the better, and what to call it; in order of weight."""
    known = one.steps[one.steps > 0.01]
    several = int(np.count_nonzero(one.steps <= 0.01))
    step = float(np.median(known)) if len(known) else 0.0
    gaps = int(np.count_nonzero(known > 1.5 * step)) if len(known) else 0
    thick = max(step, one.thickness or 0.0)
    return [
        (float(several > 0), f"{several} places with several images" if several else "one image a place"),
        (float(gaps > 0), f"{gaps} gap(s)" if gaps else "no gaps"),
        _region(one),
        (float(one.extent < WHOLE_LIVER), f"{one.extent:.0f} mm along the body"),
        _kernel(one.kernel),
        _phase(one),
        (float("SECONDARY" in one.kind.upper()), "a derived image type" if "SECONDARY" in one.kind.upper() else
         "a primary image type"),
        (0.0 if 1.0 <= thick <= 5.0 else 1.0, f"slices {thick:.3g} mm thick"),
        (round(abs(thick - 2.5), 2), f"slices {thick:.3g} mm thick"),
        (-len(one.files), f"{len(one.files)} images"),
    ]  # fmt: skip


def _region(one: Series) -> tuple[float, str]:
    part = one.body_part.upper()
    words = f"{part} {one.words}"
    if any(word in part for word in ABDOMEN) or re.search(rf"\b({'|'.join(ABDOMEN)})", words):
        return 0.0, "the abdomen"
    if any(word in words for word in CHEST):
        return 2.0, "the chest"
    return 1.0, "a body part that is not named" if not part else f"the body part {one.body_part}"


def _kernel(kernel: str) -> tuple[float, str]:
    if re.match(SHARP, kernel, re.IGNORECASE):
        return 2.0, f"the sharp kernel {kernel}"
    if re.match(SOFT, kernel, re.IGNORECASE):
        return 0.0, f"the soft kernel {kernel}"
    return 1.0, f"the kernel {kernel}" if kernel else "no kernel named"


def _phase(one: Series) -> tuple[float, str]:
    words = one.words.replace("_", " ")
    for rank, (name, pattern) in enumerate(PHASES):
        if pattern and re.search(pattern, words, re.IGNORECASE):
            return float(rank), f"the {name}" if "phase" in name else f"images {name}"
    return 1.0, "a phase that is not named"


def _header(path: str) -> Any:
    """The header of a DICOM file, None of any other; a directory of a medium (DICOMDIR) is none either."""
    try:
        if not is_dicom(Path(path)):
            return None
        with quiet_pydicom():
            header = parse(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
            for _ in header:
                pass  # pydicom parses a value when it is asked for: here, where what is damaged is known to be so
        is_directory = header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY
        return header if header.get("Modality") and not is_directory else None
    except Exception:  # pydicom raises what its parsers raise
        return None


def _place(header: Any) -> tuple[float, float | None]:
    """Cosine of the slice normal with z, and the place along the normal in mm."""
    try:
        row, column = np.reshape([float(value) for value in header.ImageOrientationPatient], (2, 3))
        position = np.array([float(value) for value in header.ImagePositionPatient])
        normal = np.cross(row, column)
        place = float(position @ normal)
    except (AttributeError, TypeError, ValueError):
        return 0.0, None
    return (float(abs(normal[2])), place) if np.isfinite(place) else (0.0, None)


def _facts(header: Any, folder: str) -> dict[str, Any]:
    """What a header says about its series; where it has no UIDs, the files of one folder with like words are one."""

    def text(name: str) -> str:
        value = header.get(name, "")
        value = "\\".join(map(str, value)) if isinstance(value, (list, tuple)) or _several(value) else str(value or "")
        return value.strip().encode("utf-8", "replace").decode()

    def number(name: str) -> float | None:
        try:
            value = float(header.get(name))
        except (TypeError, ValueError):
            return None
        return value if np.isfinite(value) else None

    return {
        "study": text("StudyInstanceUID") or f"{WITHOUT_UID}{folder}",
        "uid": text("SeriesInstanceUID") or "|".join((f"{WITHOUT_UID}{folder}", *map(text, LIKE))),
        "patient": text("PatientID"),
        "number": text("SeriesNumber"),
        "modality": text("Modality"),
        "description": text("SeriesDescription"),
        "kernel": text("ConvolutionKernel").split("\\")[0],
        "body_part": text("BodyPartExamined"),
        "words": " ".join((text("SeriesDescription"), text("ProtocolName"), text("StudyDescription"))).upper(),
        "kind": text("ImageType"),
        "thickness": number("SliceThickness"),
        "frames": int(number("NumberOfFrames") or 1),
        "contrast": text("ContrastBolusAgent"),
    }


def _several(value: Any) -> bool:
    return type(value).__name__ == "MultiValue"
