"""Hypothesis-driven fuzz of every reader: what is wrong in a file ends in a mask, a value, or a one-line error.

``python Testing/studies/fuzz.py --count 20000`` tries each reader in turn on damaged copies of small valid inputs:
header fields set to values that break readers (0, -1, not a number, huge), bytes flipped, cut, repeated or removed, and
text swapped for what parsers choke on. It runs in children, so that a crash is seen, and reports every fault with the
number that makes it again: any exception but SAMMixError, a crash, more than DEADLINE seconds or MEMORY bytes, a
process started, or a file written outside the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing" / "imaging")]

DEADLINE = 20  # seconds an input
MEMORY = 6 << 30
CHUNK = 2000
BIG = 1 << 20  # bytes of a file that is not worth damaging
NUMBERS = (0, 1, -1, 2, 127, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**63 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 0.5, 352.5)
TEXTS = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 40,
    "null",
    "[]",
    "{}",
    "true",
    '"x"',
    "../../x",
    "\\0",
    "é",
    "1 1",
    "none",
    "[" * 100_000,
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of the kinds that files meet."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        if not data:
            break
        head = min(len(data), rng.choice((64, 400, 4000, len(data))))
        at = rng.randrange(head)
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + rng.randint(1, 16)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        elif kind == 4:
            layout = rng.choice(("<h", ">h", "<i", "<q", "<H"))
            top = 2 ** (8 * struct.calcsize(layout))
            data[at : at + struct.calcsize(layout)] = (rng.choice(NUMBERS) % top).to_bytes(
                struct.calcsize(layout), "little"
            )
        elif kind == 5:
            data[at : at + 4] = struct.pack("<f", rng.choice(FLOATS))
        else:
            data = _other_text(data, rng)
    return bytes(data)


def _other_text(data: bytearray, rng: random.Random) -> bytearray:
    """A word of the text in it (a value of JSON, NRRD or CSV) swapped for another."""
    import re

    words = list(re.finditer(rb"[\w.+-]+", bytes(data[:4000])))
    if words:
        word = rng.choice(words)
        data[word.start() : word.end()] = rng.choice(TEXTS).encode()
    return data


class Fields:
    """NIfTI headers whose fields are set one by one to what breaks readers."""

    def __init__(self) -> None:
        from SAMMixLib.imaging.nifti import NIFTI1, NIFTI2

        self.layouts = (NIFTI1, NIFTI2)

    def make(self, path: Path, rng: random.Random) -> None:
        from odd_files import write_nifti

        layout = rng.choice(self.layouts)
        array = (np.arange(60) * 30 - 1000).reshape(3, 4, 5).astype(rng.choice(("i2", "f4", "u1", "i4", "f8")))
        write_nifti(path, array, layout, rng.choice("<>"), packed=rng.random() < 0.5)
        if path.read_bytes()[:2] != b"\x1f\x8b":
            content = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 3)):
                name = rng.choice(layout.names)
                kind, offset = layout.fields[name][:2]
                base, shape = (kind.subdtype or (kind, ()))[0], kind.itemsize
                if base.kind in "iuf":
                    step = rng.randrange(max(1, shape // base.itemsize)) * base.itemsize
                    value = rng.choice(FLOATS if base.kind == "f" else NUMBERS)
                    with np.errstate(all="ignore"):
                        number = (
                            np.array(value).astype(base)
                            if base.kind == "f"
                            else np.array(value % 2 ** (8 * base.itemsize), np.uint64).astype(base)
                        )
                    content[offset + step : offset + step + base.itemsize] = number.tobytes()
            path.write_bytes(content)


def readers(folder: Path) -> dict[str, tuple[Callable[[Path, random.Random], Path], Callable[[Path], object]]]:
    """For each reader: what makes a damaged input in a folder, and what reads it."""
    import h5py
    import SimpleITK as sitk
    from odd_files import phantom, segmentation

    from SAMMixLib.cohort.manifest import scans_of
    from SAMMixLib.cohort.pacs import Export
    from SAMMixLib.cohort.records import Place, read_record
    from SAMMixLib.config import Config
    from SAMMixLib.data.slices import read_slices
    from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
    from SAMMixLib.experiments.protocol import read_protocol
    from SAMMixLib.imaging.masks import read_mask
    from SAMMixLib.imaging.volume import read_volume
    from SAMMixLib.imaging.writing import is_ours
    from SAMMixLib.models.bundle import open_bundle, verify_bundle
    from SAMMixLib.models.registry import import_model
    from SAMMixLib.training.recipe import read_recipe
    from SAMMixLib.worker.protocol import decode

    os.environ["SAMMIX_HOME"] = str(folder / "home")

    seeds = folder / "seeds"
    seeds.mkdir()
    small = sitk.GetImageFromArray((np.arange(480) * 5 - 1000).reshape(6, 8, 10).astype(np.int16))
    for suffix in ("nii", "nii.gz", "nrrd", "mha", "mhd"):
        sitk.WriteImage(small, str(seeds / f"ct.{suffix}"))
    sitk.WriteImage(small > 0, str(seeds / "mask.nii.gz"))
    liver = sitk.GetArrayFromImage(phantom().liver)[4:8, ::4, ::4]
    grid = sitk.GetImageFromArray(liver)
    names = [("spleen", 1, 0, ""), ("liver", 1, 1, "")]
    segmentation(seeds / "s.seg.nrrd", np.stack([liver, liver], -1), grid, names)
    series = seeds / "series"
    series.mkdir()
    _write_dicom(series)
    bundle = REPOSITORY / "SAMMixLib" / "models" / "starter"
    shutil.copytree(bundle, seeds / "bundle")
    training = TrainingSet.create(seeds / "set")
    images = (np.arange(512)[::-1] * 3 - 500).reshape(2, 16, 16).astype(np.int16)
    training.add(LabelledSlices("a", [0, 1], images, (1.0, 1.0), [True, True], images > 0, {"scan": "x"}))
    np.savez(seeds / "a.npz", image=images, mask=(images > 0).astype(np.uint8), slice=np.arange(2))
    _write_more_dicom(seeds)
    training.export(seeds / "set.zip")
    with zipfile.ZipFile(seeds / "model.zip", "w") as archive:
        archive.write(bundle / "sammix.json", "m/sammix.json")
        archive.writestr("m/classifier.safetensors", b"x" * 100)
    with h5py.File(seeds / "a.h5", "w") as file:
        for k, pixels in enumerate(images):
            file[f"Slice{k}/Slice"], file[f"Slice{k}/Segmentation"] = pixels, (pixels > 0).astype(np.uint8)
            file[f"Slice{k}"].attrs["ImageLabel"] = [1]
    recipe = (REPOSITORY / "Resources" / "recipes" / "starter.json").read_bytes()
    protocol = (REPOSITORY / "SAMMixLib" / "experiments" / "protocols" / "desk.json").read_bytes()
    record = json.dumps({"schema": 1, "scan": "x", "status": "done", "input": {"facts": "a", "sha256": "b"}}).encode()
    config = json.dumps({"model": {"size": 256}, "training": {"seed": 1}, "volume": {"refine": 1}}).encode()
    message = json.dumps({"type": "segment", "id": 3, "volume": "x.nrrd", "slices": [1, 2]}).encode()
    fields = Fields()

    def one(name: str) -> Callable[[Path, random.Random], Path]:
        content = (seeds / name).read_bytes()

        def make(where: Path, rng: random.Random) -> Path:
            path = where / Path(name).name
            path.write_bytes(damaged(content, rng))
            if name.endswith(".mhd"):
                shutil.copy(seeds / "ct.raw", where)
            return path

        return make

    def tree(name: str) -> Callable[[Path, random.Random], Path]:
        def make(where: Path, rng: random.Random) -> Path:
            copied = shutil.copytree(seeds / name, where / name, copy_function=os.link)
            victim = rng.choice(
                sorted(file for file in copied.rglob("*") if file.is_file() and file.stat().st_size < 1 << 20)
            )
            content = victim.read_bytes()
            victim.unlink()
            victim.write_bytes(damaged(content, rng))
            return copied

        return make

    def text(content: bytes, name: str) -> Callable[[Path, random.Random], Path]:
        def make(where: Path, rng: random.Random) -> Path:
            (where / name).write_bytes(damaged(content, rng))
            return where / name

        return make

    def nifti(where: Path, rng: random.Random) -> Path:
        fields.make(where / "ct.nii", rng)
        return where / "ct.nii"

    def labels(where: Path, rng: random.Random) -> Path:
        shutil.copy(seeds / "ct.nrrd", where / "x.nrrd")
        (where / "labels.csv").write_bytes(damaged(b"patient,slice,label\nx,0,1\nx,1,0\nx,2,1\n", rng))
        return where

    def decathlon(where: Path, rng: random.Random) -> Path:
        for name, source in (("imagesTr", "ct.nii.gz"), ("labelsTr", "mask.nii.gz")):
            (where / name).mkdir()
            shutil.copy(seeds / source, where / name / "p_0000.nii.gz")
        said = json.dumps({"labels": {"background": 0, "liver": [1, 2]}}).encode()
        (where / "dataset.json").write_bytes(damaged(said, rng))
        return where

    def whole_set(path: Path) -> object:
        opened = TrainingSet.open(path)
        for entry in opened.entries():
            opened.load(entry)
        return opened.verify()

    def configured(path: Path) -> object:
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None
        return Config.from_dict(data, str(path))

    def slices(path: Path) -> object:
        return read_slices(path, 16)

    def imported(path: Path) -> object:
        return TrainingSet.import_(path, path.parent / "imported").entries()

    def cohort(path: Path) -> object:
        notes = Export(path.parent / "notes.sqlite")
        try:
            return list(scans_of(path, path.parent / "out", notes))
        finally:
            notes.close()

    return {
        "NIfTI fields": (nifti, read_volume),
        "NIfTI": (one("ct.nii"), read_volume),
        "NIfTI gz": (one("ct.nii.gz"), read_volume),
        "NRRD": (one("ct.nrrd"), read_volume),
        "MetaImage": (one("ct.mha"), read_volume),
        "MetaImage header": (one("ct.mhd"), read_volume),
        "DICOM file": (one("series/0.dcm"), read_volume),
        "DICOM folder": (tree("series"), read_volume),
        "DICOM enhanced": (one("enhanced.dcm"), read_volume),
        "DICOMDIR": (one("DICOMDIR"), read_volume),
        "DICOM SEG": (one("seg.dcm"), read_mask),
        "mask": (one("mask.nii.gz"), read_mask),
        "segments": (one("s.seg.nrrd"), read_mask),
        "DICOM as mask": (one("series/1.dcm"), read_mask),
        "mark of ours": (one("s.seg.nrrd"), is_ours),
        "bundle": (tree("bundle"), lambda path: verify_bundle(open_bundle(path))),
        "training set": (tree("set"), whole_set),
        "zip of a set": (one("set.zip"), imported),
        "zip of a model": (one("model.zip"), import_model),
        "HDF5": (one("a.h5"), slices),
        "npz": (one("a.npz"), slices),
        "labels.csv": (labels, slices),
        "dataset.json": (decathlon, slices),
        "config": (text(config, "config.json"), configured),
        "recipe": (text(recipe, "recipe.json"), read_recipe),
        "protocol": (text(protocol, "protocol.json"), lambda path: read_protocol(str(path))),
        "cohort's table": (text(b"path,name,patient\nx.nrrd,x,a\ny.nrrd,,b\n", "scans.csv"), cohort),
        "cohort's folder": (tree("series"), cohort),
        "cohort's record": (text(record, "x.json"), lambda path: read_record(Place(path.parent, "x"))),
        "worker message": (text(message, "message"), lambda path: decode(path.read_bytes())),
    }


def _write_dicom(folder: Path) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    for n in range(3):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{n}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID, file.Modality = CTImageStorage, f"1.2.3.{n}", "CT"
        file.SeriesInstanceUID, file.SeriesNumber = "1.2.3", 1
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, 3 * n], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [1, 1], 3
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 8, 10, 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelData = (np.arange(80, dtype="<i2") * 20).tobytes()
        file.save_as(folder / f"{n}.dcm", enforce_file_format=True)


def _write_more_dicom(folder: Path) -> None:
    """Of the series in `folder`: a DICOM SEG, an enhanced multi-frame image, and a directory."""
    import highdicom
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.fileset import FileSet
    from pydicom.sr.codedict import codes
    from pydicom.uid import EnhancedCTImageStorage

    files = [pydicom.dcmread(folder / "series" / f"{n}.dcm") for n in range(3)]
    for file in files:
        file.StudyInstanceUID, file.FrameOfReferenceUID, file.PatientID, file.StudyID = "1.2", "1.2.9", "p", "1"
        file.InstanceNumber = int(file.SOPInstanceUID[-1]) + 1
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"):
            setattr(file, name, "")
        file.StudyDate, file.StudyTime, file.Manufacturer = "20200101", "000000", "x"
    algorithm = highdicom.AlgorithmIdentificationSequence("x", codes.DCM.ArtificialIntelligence, "1")
    segment = highdicom.seg.SegmentDescription(
        1, "liver", codes.SCT.Organ, codes.SCT.Liver, "AUTOMATIC", algorithm_identification=algorithm
    )
    highdicom.seg.Segmentation(
        files, np.ones((3, 8, 10), np.uint8), "BINARY", [segment], "1.2.5", 1, "1.2.6", 1, "x", "x", "1", "1"
    ).save_as(folder / "seg.dcm")

    directory = FileSet()
    for file in files:
        directory.add(file)
    directory.write(folder / "medium")
    shutil.copy(folder / "medium" / "DICOMDIR", folder)

    enhanced, groups = files[0], []
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for n in range(3):
        place, turned, step, group = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient, turned.ImageOrientationPatient = [0, 0, 3 * n], [1, 0, 0, 0, 1, 0]
        step.PixelSpacing, step.SliceThickness = [1, 1], 3
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [turned]
        group.PixelMeasuresSequence = [step]
        groups.append(group)
    enhanced.NumberOfFrames, enhanced.PerFrameFunctionalGroupsSequence = 3, groups
    enhanced.PixelData = enhanced.PixelData * 3
    enhanced.save_as(folder / "enhanced.dcm", enforce_file_format=True)


def watched(allowed: Path) -> Callable[[str, tuple], None]:
    """An audit hook that refuses to start processes and to write outside a folder and the temporary one."""
    places = (str(allowed), tempfile.gettempdir(), os.devnull)

    def hook(event: str, arguments: tuple) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
            raise PermissionError(f"fuzz: {event} {arguments[:1]}")
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.abspath(arguments[0]).startswith(places):
                raise PermissionError(f"fuzz: writes {arguments[0]}")

    return hook


def run_chunk(start: int, count: int, seed: int) -> tuple[Counter, list[str]]:
    """Try `count` inputs from number `start`; what came out of each reader, and the faults."""
    from SAMMixLib.errors import SAMMixError

    outcomes: Counter = Counter()
    faults = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        kinds = readers(folder)
        sys.addaudithook(watched(folder))
        for number in range(start, start + count):
            kind = list(kinds)[number % len(kinds)]
            make, read = kinds[kind]
            rng = random.Random(seed * 10**9 + number)
            where = folder / "input"
            where.mkdir()
            path = make(where, rng)
            print(f"at {number} {kind}", file=sys.stderr, flush=True)
            started = time.monotonic()
            if hasattr(signal, "alarm"):
                signal.alarm(DEADLINE)
            try:
                read(path)
                outcomes[kind, "read"] += 1
            except SAMMixError as error:
                outcomes[kind, "refused"] += 1
                if "\n" in str(error):
                    faults.append(f"{number} {kind}: an error of several lines: {str(error)!r}")
            except Exception as error:
                outcomes[kind, "fault"] += 1
                faults.append(f"{number} {kind}: {type(error).__name__}: {str(error)[:200]!r} at {_where(error)}")
            finally:
                if hasattr(signal, "alarm"):
                    signal.alarm(0)
            if time.monotonic() - started > DEADLINE:
                faults.append(f"{number} {kind}: took {time.monotonic() - started:.0f} s")
            shutil.rmtree(where)
    return outcomes, faults


def _where(error: BaseException) -> str:
    frames, trace = [], error.__traceback__
    while trace:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(frames[:-4:-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--chunk", action="store_true", help="run in this process (a child's own option)")
    options = parser.parse_args()
    if options.chunk:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        outcomes, faults = run_chunk(options.start, options.count, options.seed)
        print(json.dumps({"outcomes": [[*key, n] for key, n in outcomes.items()], "faults": faults}))
        return 0
    outcomes, faults = Counter(), []
    for start in range(options.start, options.start + options.count, CHUNK):
        count = min(CHUNK, options.start + options.count - start)
        command = [
            sys.executable,
            __file__,
            "--chunk",
            "--start",
            str(start),
            "--count",
            str(count),
            "--seed",
            str(options.seed),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("at ")]
            last = lines[-1] if lines else "before the first"
            found = [f"the process ended with {done.returncode} {last}: {done.stderr[-300:]!r}"]
        else:
            told = json.loads(done.stdout.splitlines()[-1])
            found = told["faults"]
            for kind, what, n in told["outcomes"]:
                outcomes[kind, what] += n
        faults += found
        print(*found, f"{start + count} inputs, {len(faults)} faults", sep="\n", flush=True)
    for (kind, what), n in sorted(outcomes.items()):
        print(f"{kind:20} {what:8} {n}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
