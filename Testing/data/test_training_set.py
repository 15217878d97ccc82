"""Training sets: what is added comes back exactly, through kills, damage and moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib import files
from SAMMixLib.cli import main
from SAMMixLib.data.slices import SliceDataset, read_slices
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet, patient_name
from SAMMixLib.data.training_set.journal import JOURNAL, LOCK, SLICES
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import locked
from SAMMixLib.imaging.masks import axial_mask
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.structure import LIVER, SPLEEN, TUMOUR, Structure, structure_named

SPACING = (0.7, 0.8)


def hu(n: int, shape: tuple[int, int] = (6, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3000, (n, *shape)).astype(np.int16)


def masks_of(images: np.ndarray) -> np.ndarray:
    return (images > 1000).astype(np.uint8)


def add(target: TrainingSet, patient: str, ks, label: bool = True, masked: bool = True, seed: int = 0):
    images = hu(len(ks), seed=seed)
    masks = masks_of(images) if label else np.zeros(images.shape, np.uint8)
    labels = [label] * len(ks)
    return target.add(LabelledSlices(patient, ks, images, SPACING, labels, masks if masked else None, {"seed": seed}))


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(SAMMixError) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def training_set(tmp_path) -> TrainingSet:
    return TrainingSet.create(tmp_path / "set", SPLEEN, "my spleens")


def oriented(path: Path, shape, spacing, direction, seed: int, two: bool = False) -> tuple[Path, Path]:
    """A scan of 16-bit noise with an asymmetric mask, both stored in the given orientation."""
    array = hu(shape[0], shape[1:], seed)
    mask = np.zeros(shape, np.uint8)
    mask[1:-1, 2:5, 1:4] = 1
    mask[2, 3:5, 1:4] = 2 if two else 1
    files = path.with_suffix(".nrrd"), path.with_name(f"{path.name}_mask.nrrd")
    for file, voxels in zip(files, (array, mask), strict=True):
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(spacing)
        image.SetDirection(direction)
        image.SetOrigin((3.0, -7.0, 11.0))
        sitk.WriteImage(image, str(file))
    return files


SCANS = {  # size [z, y, x], spacing (x, y, z), direction (columns: where x, y and z point in LPS)
    "flipped": ((7, 12, 10), (0.75, 0.5, 2.5), (-1, 0, 0, 0, -1, 0, 0, 0, -1)),
    "coronal": ((9, 8, 11), (1.5, 3.0, 0.625), (1, 0, 0, 0, 0, 1, 0, -1, 0)),
}


def test_volumes_of_other_spacing_and_orientation_read_back_exactly(tmp_path, training_set):
    stacks = {}
    for seed, (name, (shape, spacing, direction)) in enumerate(SCANS.items()):
        scan, mask = oriented(tmp_path / name, shape, spacing, direction, seed)
        volume = read_volume(scan)
        stack, masks = volume.axial(), axial_mask(mask, volume)
        ks = list(range(len(stack.array)))
        labels, provenance = masks.any((1, 2)), {"file": scan.name}
        training_set.add(LabelledSlices(name, ks, stack.array, stack.spacing[1:], labels, masks, provenance))
        stacks[name] = stack, masks, direct(scan, mask, 16)
    assert stacks["flipped"][0].array.shape == (7, 12, 10) and stacks["coronal"][0].array.shape == (8, 9, 11)

    read = TrainingSet.open(training_set.folder)
    assert len(read.entries()) == 15
    for entry in read.entries():
        stack, masks, _ = stacks[entry.patient]
        image, mask = read.load(entry)
        assert image.dtype == np.int16 and mask.dtype == np.uint8
        assert np.array_equal(image, stack.array[entry.slice]) and np.array_equal(mask, masks[entry.slice])
        assert entry.spacing == stack.spacing[1:] and entry.label == masks[entry.slice].any()

    dataset = read_slices(training_set.folder, size=16)
    for name, (_, _, expected) in stacks.items():
        own = dataset.select(dataset.patients == name)
        for field in ("images", "masks", "labels", "indices", "spacings", "has_mask"):
            assert np.array_equal(getattr(own, field), getattr(expected, field)), (name, field)


def direct(scan: Path, mask: Path, size: int) -> SliceDataset:
    """The same slices without a training set in between."""
    return read_slices([(scan, mask)], size)


def test_masks_and_image_level_labels_mix_within_a_scan(training_set):
    add(training_set, "a", range(20, 23))
    add(training_set, "a", range(5, 25), masked=False)
    add(training_set, "a", [0, 1], label=False, masked=False)
    add(training_set, "b", [4], label=False)
    training_set.set_active([("a", 0), ("a", 21)], False)
    dataset = read_slices(training_set.folder, size=8)
    a = dataset.select(dataset.patients == "a")
    assert a.indices.tolist() == [1, *range(5, 21), *range(22, 25)]
    assert a.indices[a.has_mask].tolist() == [20, 22]
    assert a.indices[~a.labels].tolist() == [1]
    assert not a.masks[~a.has_mask].any() and a.masks[a.has_mask].any((1, 2)).all()
    b = dataset.select(dataset.patients == "b")
    assert b.has_mask.all() and not b.labels.any() and not b.masks.any()
    assert read_slices(training_set.folder, 8, patients=["b"]).patient_names() == ["b"]
    training_set.set_active([entry.key for entry in training_set.entries()], False)
    assert "no ticked slices" in refusal(read_slices, training_set.folder)


KINDS = ["mask", "label", "without", "tick", "untick"]
EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(KINDS)), max_size=12)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(EVENTS)
def test_the_last_word_on_a_slice_counts(tmp_path_factory, events):
    target = TrainingSet.create(tmp_path_factory.mktemp("sets") / "set")
    expected: dict[tuple[str, int], tuple] = {}
    for number, (patient, k, event) in enumerate(events):
        before = expected.get((patient, k))
        if event in ("tick", "untick"):
            if before:
                target.set_active([(patient, k)], event == "tick")
                expected[patient, k] = (*before[:3], event == "tick")
            continue
        add(target, patient, [k], label=event != "without", masked=event == "mask", seed=number)
        if event == "label" and before and before[1]:
            expected[patient, k] = (*before[:3], True)  # the label says what the mask says
        else:
            expected[patient, k] = (event != "without", event == "mask", number, True)
    found = {
        entry.key: (entry.label, entry.has_mask, entry.provenance["seed"], entry.active) for entry in target.entries()
    }
    assert found == expected
    for entry in target.entries():
        assert np.array_equal(target.load(entry)[0], hu(1, seed=entry.provenance["seed"])[0])


ADDING = """
import sys
import numpy as np
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
target, first = TrainingSet.open(sys.argv[1]), int(sys.argv[2])
for n in range(first, first + 10000):
    images = np.random.default_rng(n).integers(-1024, 3000, (2, 64, 64)).astype(np.int16)
    masks = (images > 1000).astype(np.uint8)
    target.add(LabelledSlices("p", [2 * n, 2 * n + 1], images, (0.7, 0.8), [True, True], masks, {"n": n}))
    print(n, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_kill_at_any_moment_loses_no_slice_that_was_added(tmp_path):
    target = TrainingSet.create(tmp_path / "set")
    random, first, told, torn = np.random.default_rng(0), 0, set(), 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", ADDING, str(target.folder), str(first)], stdout=subprocess.PIPE, text=True
        )
        told.add(int(process.stdout.readline()))
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        told |= {int(line) for line in process.communicate()[0].split("\n") if line}
        entries = {entry.slice: entry for entry in target.entries()}
        assert {k for n in told for k in (2 * n, 2 * n + 1)} <= set(entries)
        assert len(entries) <= 2 * len(told) + 2 * (torn := torn + 1), "at most the add that was under way"
        first = max(entries) // 2 + 1
    target.verify()
    for k, entry in entries.items():
        image = np.random.default_rng(k // 2).integers(-1024, 3000, (2, 64, 64)).astype(np.int16)[k % 2]
        assert np.array_equal(target.load(entry)[0], image)


APPENDING = """
import sys
import numpy as np
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
target, patient = TrainingSet.open(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(sys.argv[3])):
    target.add(LabelledSlices(patient, [k], np.full((1, 4, 4), k, np.int16), (0.7, 0.8), [True]))
"""


def appending(target: TrainingSet, patient: str, count: int) -> subprocess.Popen:
    """A process that adds `count` slices once it reads a line; it has opened the set."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDING, str(target.folder), patient, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_two_processes_append_200_slices_each_and_none_is_lost(training_set):
    both = [appending(training_set, patient, 200) for patient in "ab"]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(300) for process in both] == [0, 0]
    entries = training_set.entries()
    assert [entry.key for entry in entries] == [(patient, k) for patient in "ab" for k in range(200)]
    assert all((training_set.load(entry)[0] == entry.slice).all() for entry in entries)
    training_set.verify()


@pytest.mark.slow
def test_a_line_that_another_process_is_writing_is_not_taken_for_a_torn_one(training_set):
    add(training_set, "a", [1])
    journal = training_set.folder / JOURNAL
    line = journal.read_bytes().replace(b'"slices": [1]', b'"slices": [2]')
    adding = appending(training_set, "b", 1)
    with locked(training_set.folder / LOCK), journal.open("ab", buffering=0) as file:
        file.write(line[:40])
        adding.stdin.write("\n")
        adding.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            adding.wait(1)
        file.write(line[40:])
    assert adding.wait(60) == 0
    assert [entry.key for entry in training_set.entries()] == [("a", 1), ("a", 2), ("b", 0)]


def test_a_killed_process_leaves_no_lock(training_set):
    lock = training_set.folder / LOCK
    code = "import sys; from SAMMixLib.files import locked\nwith locked(sys.argv[1]): print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "PATIENCE", 0.0)
        assert "another process has held it" in refusal(add, training_set, "a", [1])
    holder.kill()
    holder.communicate()
    add(training_set, "a", [1])
    assert len(training_set.entries()) == 1


@pytest.mark.slow
def test_500_labels_are_added_and_shown_in_linear_time(training_set, monkeypatch):
    """Each line is parsed once, and of what was read before only the last line is looked at again."""
    parsed, read = [], []
    parse, opened = json.loads, Path.open

    def counting(path, mode="r", *options):
        file = opened(path, mode, *options)
        if path.name == JOURNAL:
            take = file.read
            file.read = lambda *size: read.append(take(*size)) or read[-1]
        return file

    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or parse(line))
    monkeypatch.setattr(Path, "open", counting)
    for k in range(500):
        add(training_set, "a", [k], masked=False)
    assert len(training_set.entries()) == 500
    assert len(parsed) == 500
    size = (training_set.folder / JOURNAL).stat().st_size
    assert size <= sum(map(len, read)) < 5 * size


@pytest.mark.parametrize("tail", [b"{", b'{"event": "add", "patient": "b", "sli', b"\0" * 20, b"\xff"])
def test_a_torn_last_line_counts_for_nothing_and_goes(training_set, tail):
    add(training_set, "a", [1])
    journal = training_set.folder / JOURNAL
    with journal.open("ab") as file:
        file.write(tail)
    assert [entry.key for entry in training_set.entries()] == [("a", 1)]
    add(training_set, "a", [2])
    assert [entry.key for entry in TrainingSet.open(training_set.folder).entries()] == [("a", 1), ("a", 2)]
    assert journal.read_bytes().count(b"\n") == 2 and tail not in journal.read_bytes()[-len(tail) :]


def test_every_cut_of_the_journal_reads_as_what_was_whole(training_set):
    for k in range(3):
        add(training_set, "a", [k])
    journal = training_set.folder / JOURNAL
    whole = journal.read_bytes()
    for length in range(0, len(whole) + 1, 7):
        journal.write_bytes(whole[:length])
        assert len(training_set.entries()) == whole[:length].count(b"\n")


def test_damage_is_told_with_the_file(training_set):
    (entry,) = add(training_set, "a", [1])
    content = entry.file.read_bytes()
    entry.file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    for action in (lambda: training_set.load(entry), training_set.verify, lambda: read_slices(training_set.folder)):
        message = refusal(action)
        assert message.startswith(str(entry.file)) and "not as it was written" in message
    entry.file.unlink()
    assert "cannot be read" in refusal(training_set.verify)
    assert "cannot be read" in refusal(training_set.export, training_set.folder.parent / "out.zip")
    assert not list(training_set.folder.parent.glob("*.zip")), "nothing half-written"
    entry.file.write_bytes(content)
    training_set.verify()

    journal = training_set.folder / JOURNAL
    whole = journal.read_text()
    for damaged, word in (
        ("nonsense\n" + whole, "line 1 is damaged"),
        (whole.replace('"slices": [1]', '"slices": [1, 2]'), "line 1 is damaged"),
        (whole.replace('"file": "', '"file": "../'), "line 1 is damaged"),
        (whole + '{"event": "active", "keys": [["b", 1]], "active": true}\n', "line 2 is damaged"),
        (whole + '{"event": "rotate"}\n', "update SAMMix"),
    ):
        journal.write_text(damaged)
        message = refusal(training_set.entries)
        assert message.startswith(str(journal)) and word in message
        assert refusal(TrainingSet.open, training_set.folder) == message
    journal.write_text(whole.replace('"labels": [true]', '"labels": [false]'))
    assert "differs from" in refusal(training_set.verify)
    journal.unlink()
    assert "cannot be read" in refusal(training_set.entries)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": 2}, "newer than this SAMMix"),
        ({"schema": "1"}, "damaged"),
        ({"name": None}, "damaged"),
        ({"structure": {"name": "spleen"}}, "not a structure"),
        ({"structure": SPLEEN.to_dict() | {"color": [0, 0, 256]}}, "not a structure"),
        ({"structure": SPLEEN.to_dict() | {"code": "1~2"}}, "not a structure"),
        ({"structure": SPLEEN.to_dict() | {"more": 1}}, "not a structure"),
    ],
)
def test_a_card_of_another_schema_or_damaged(training_set, change, word):
    card = training_set.folder / "training_set.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    message = refusal(TrainingSet.open, training_set.folder)
    assert message.startswith(str(card)) and word in message


def test_what_cannot_be_a_set(tmp_path, training_set):
    assert "no training set here" in refusal(TrainingSet.open, tmp_path)
    assert "is there already" in refusal(TrainingSet.create, training_set.folder)
    (training_set.folder / "training_set.json").write_bytes(b"\xff{")
    assert "damaged" in refusal(TrainingSet.open, training_set.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert TrainingSet.create(empty).structure == LIVER
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "set"], "nothing is left beside"


def test_bad_slices_add_nothing(training_set):
    images = hu(2)
    good = {"patient": "a", "slices": [1, 2], "images": images, "spacing": SPACING, "labels": [True, True]}

    def adding(**change) -> None:
        training_set.add(LabelledSlices(**(good | change)))

    for change, word in (
        ({"slices": [], "images": images[:0], "labels": []}, "no slices"),
        ({"slices": [1]}, "1 slices, but"),
        ({"slices": [1, 1]}, "twice"),
        ({"images": images[0]}, "images (6, 8)"),
        ({"labels": [True]}, "labels (1,)"),
        ({"spacing": (0.0, 1.0)}, "spacing"),
        ({"images": images * np.nan}, "NaN"),
        ({"masks": masks_of(images)[:, :3]}, "masks are (2, 3, 8)"),
        ({"masks": np.zeros(images.shape)}, "slice 1 holds the structure but its mask is empty"),
        ({"masks": masks_of(images), "labels": [True, False]}, "slice 2 is without, but has a mask"),
    ):
        assert word in refusal(adding, **change)
    assert training_set.entries() == [] and not list((training_set.folder / SLICES).iterdir())
    adding()
    assert "other pixels" in refusal(adding, spacing=(0.7, 0.81))
    assert "other pixels" in refusal(adding, images=images[:, :5])
    adding(spacing=(0.7000001, 0.8))
    assert "slice 9 of a is not in" in refusal(training_set.set_active, [("a", 9)], True)


def test_export_and_import(tmp_path, training_set):
    add(training_set, "a", range(20))
    add(training_set, "a", range(20), label=False, masked=False, seed=1)
    training_set.set_active([("a", 3)], False)
    (training_set.folder / SLICES / ".left-by-a-kill").write_text("x")
    archive = training_set.export(tmp_path / "out.zip")
    moved = TrainingSet.import_(archive, tmp_path / "elsewhere" / "again")
    assert (moved.name, moved.structure) == ("my spleens", SPLEEN)
    for one, other in zip(training_set.entries(), moved.entries(), strict=True):
        assert (one.key, one.label, one.active) == (other.key, other.label, other.active)
        assert np.array_equal(training_set.load(one), moved.load(other))
    assert not (moved.folder / SLICES / ".left-by-a-kill").exists()
    add(moved, "b", [1])

    assert "is there already" in refusal(TrainingSet.import_, archive, moved.folder)
    assert ".zip" in refusal(training_set.export, tmp_path / "out.tar")
    assert "not a readable zip" in refusal(TrainingSet.import_, training_set.folder / JOURNAL, tmp_path / "no")
    assert "not a readable zip" in refusal(TrainingSet.import_, tmp_path / "absent.zip", tmp_path / "no")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as other:
        other.writestr("x", "y")
    assert "holds 0 training sets" in refusal(TrainingSet.import_, tmp_path / "empty.zip", tmp_path / "no")
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in whole.namelist()[:-1]:
            less.writestr(name, whole.read(name))
    with zipfile.ZipFile(tmp_path / "outside.zip", "w") as other:
        other.writestr(f"{training_set.folder}/training_set.json", "{}")
        other.writestr("../../training_set.json", "{}")
    assert "outside.zip" in refusal(TrainingSet.import_, tmp_path / "outside.zip", tmp_path / "no")
    assert len(TrainingSet.open(training_set.folder).entries()) == 20
    message = refusal(TrainingSet.import_, tmp_path / "less.zip", tmp_path / "no")
    assert message.startswith(str(tmp_path / "less.zip")) and "cannot be read" in message
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob(".no-*"))


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_adds_nothing_and_the_next_add_works(training_set):
    import resource

    add(training_set, "a", [1])
    size = (training_set.folder / JOURNAL).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit, count in ((200, 1), (size + 50, 1), (5000, 250)):  # in the slices; in the first line, in a later one
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                message = refusal(add, training_set, "a", range(2, 2 + count), seed=2)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "cannot be written" in message
            assert [entry.key for entry in training_set.entries()] == [("a", 1)]
            assert (training_set.folder / JOURNAL).stat().st_size == size
    finally:
        signal.signal(signal.SIGXFSZ, before)
    add(training_set, "a", [2], seed=2)
    assert len(training_set.entries()) == 2


def test_a_scan_is_known_again_whatever_it_is_padded_with(tmp_path):
    scan, _ = oriented(tmp_path / "scan", *SCANS["flipped"], seed=3)
    stack = read_volume(scan).axial()
    name = patient_name("scan", stack.array, stack.spacing)
    assert name.startswith("scan-") and len(name) == 13
    padded = np.where(stack.array == stack.array.min(), -3024, stack.array).astype(np.float32)
    floor = np.where(stack.array == stack.array.min(), -1024, stack.array)
    assert patient_name("scan", padded, stack.spacing) == patient_name("scan", floor, stack.spacing)
    assert patient_name("scan", stack.array[::-1], stack.spacing) != name
    assert patient_name("scan", stack.array, (2.5, 0.5, 0.76)) != name


def test_structures(tmp_path):
    for structure in (LIVER, SPLEEN, TUMOUR):
        assert Structure.from_dict(json.loads(json.dumps(structure.to_dict())), "x") == structure
        assert structure_named(structure.name) == structure
    assert LIVER.terminology == (
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
        "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
    )
    assert "liver, spleen, kidney, tumour" in refusal(structure_named, "heart")
    for damaged in (None, [], {}, {"name": 1}, LIVER.to_dict() | {"color": "red"}, LIVER.to_dict() | {"name": " "}):
        assert refusal(Structure.from_dict, damaged, "card.json").startswith("card.json: not a structure")


def test_one_value_of_the_masks(tmp_path):
    scan, mask = oriented(tmp_path / "scan", *SCANS["flipped"], seed=3, two=True)
    first, second = (read_slices([(scan, mask)], 16, mask_value=value) for value in (1, 2))
    assert first.labels.sum() == 5 and second.labels.sum() == 1
    assert 0 < second.masks.sum() < first.masks.sum()
    assert "2 labels (1, 2); say which" in refusal(read_slices, [(scan, mask)], 16)
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[1, :5], masks[2, :5] = 1, 2
    np.savez(tmp_path / "a.npz", image=hu(3, (16, 16)), mask=masks, slice=np.arange(3))
    assert read_slices(tmp_path / "a.npz", 16, mask_value=2).labels.tolist() == [False, False, True]
    target = TrainingSet.create(tmp_path / "set")
    assert "leave mask_value out" in refusal(read_slices, target.folder, mask_value=2)


def test_collect(tmp_path, capsys):
    scan, mask = oriented(tmp_path / "scan", *SCANS["flipped"], seed=3, two=True)
    where = tmp_path / "sets" / "tumours"
    collect = ["collect", str(scan), "--set", str(where)]

    def run(*more) -> dict:
        assert main([*collect, *map(str, more), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    def fails(*more) -> str:
        assert main([*collect, *map(str, more)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("sammix: error: ") and error.count("\n") == 1
        return error

    assert "nothing to collect" in fails()
    assert "liver, spleen" in fails("--structure", "heart", "--slices", 1)
    assert "slices 0 to 6" in fails("--slices", "5-9")
    assert "decide on one" in fails("--mask", mask, "--mask-value", 1, "--no-structure", "1-6")
    with pytest.raises(SystemExit):
        main([*collect, "--slices", "5-3"])
    assert "write 3,7,10-20" in capsys.readouterr().err
    assert not where.exists(), "a refused run makes nothing"

    assert run("--structure", "tumour", "--mask", mask, "--mask-value", 2)["added"] == 7
    target = TrainingSet.open(where)
    assert target.structure == TUMOUR and len(target.entries()) == 7
    (shown,) = (entry for entry in target.entries() if entry.label)
    stack = read_volume(scan).axial()
    image, found = target.load(shown)
    assert np.array_equal(image, stack.array[shown.slice]) and found.sum() == 6
    assert shown.provenance == {"scan": scan.name, "slices": 7, "how": "sammix collect"}
    assert run("--slices", "3,5-6", "--no-structure", "0")["added"] == 4
    labels = {entry.slice: (entry.label, entry.has_mask) for entry in target.entries()}
    assert labels[3] == labels[5] == labels[6] == (True, False) and labels[0] == (False, True)
    assert "is a training set of tumour" in fails("--structure", "spleen", "--slices", 1)


def test_a_real_scan_reads_back_as_from_its_files(shared_data, tmp_path):
    scan, mask = (shared_data / "volumes" / f"totalseg_a_{which}.nii.gz" for which in ("img", "liver"))
    assert main(["collect", str(scan), "--mask", str(mask), "--set", str(tmp_path / "set")]) == 0
    collected, expected = read_slices(tmp_path / "set"), direct(scan, mask, 256)
    for field in ("images", "masks", "labels", "indices", "spacings", "has_mask"):
        assert np.array_equal(getattr(collected, field), getattr(expected, field)), field
