"""What the buttons of the tab Train collect, with a scan that is played and a real training set on disk."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from SAMMixLib.data.training_set import TrainingSet
from SAMMixLib.data.training_set import training_set as sets
from SAMMixLib.data.training_set.slice_files import recent_slice_file
from SAMMixLib.module.session.collecting import Collector, summary
from SAMMixLib.module.session.pictures import outline, ppm, slice_picture
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.paths import training_sets_folder
from SAMMixLib.structure import LIVER, SPLEEN

TOTAL = 12
WITH_LIVER = range(4, 9)  # of the played segment


class Table(dict):
    def value(self, key, default):
        return self.get(key, default)

    def setValue(self, key, value):
        self[key] = value


class PlayedSource:
    def __init__(self, name="CT", spacing=(0.7, 0.8)):
        self.name, self.patient, self.total, self.spacing = name, "", TOTAL, spacing
        self.stack = np.random.default_rng(0).integers(-1000, 400, (TOTAL, 10, 14)).astype(np.int16)
        self.segment = np.zeros(self.stack.shape, np.uint8)
        self.segment[list(WITH_LIVER), 2:6, 3:9] = 1

    def identify(self):
        yield
        self.patient = f"{self.name}-1234"

    def images(self, ks):
        return self.stack[list(ks)]

    def masks(self, ks, structure):
        return self.segment[list(ks)]

    def provenance(self):
        return {"volume": self.name}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Table:
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    return Table()


@pytest.fixture
def collector(store) -> Collector:
    return Collector(Settings(store))


def finish(collector: Collector) -> int:
    """Work to the end; how many steps it took."""
    steps = 0
    while collector.busy:
        collector.tick()
        steps += 1
        assert steps < 1000
    return steps


def listed(collector: Collector) -> list[tuple[int, bool, bool]]:
    return [(entry.slice, entry.label, entry.has_mask) for entry in collector.entries]


def test_the_first_click_makes_a_set_and_the_slice_is_on_the_disk(collector, store):
    source = PlayedSource()
    assert collector.set is None and collector.structure == LIVER
    collector.take(source, [5, 2], "edited")
    finish(collector)
    assert listed(collector) == [(2, False, True), (5, True, True)] and not collector.error
    assert collector.message == "Taken: slice 5 with liver; slice 2 without liver."
    again = Collector(Settings(store))  # after the application was closed
    assert listed(again) == listed(collector)
    image, mask = again.set.load(again.entries[1])
    assert np.array_equal(image, source.stack[5]) and np.array_equal(mask, source.segment[5])
    assert again.entries[1].spacing == (0.7, 0.8)
    assert again.entries[1].provenance == {"volume": "CT", "how": "edited"}


def test_no_liver_here_overrules_the_segment(collector):
    collector.exclude(PlayedSource(), 5)
    finish(collector)
    assert listed(collector) == [(5, False, False)]


def test_a_range_labels_hundreds_of_slices_and_leaves_masks_alone(collector):
    source = PlayedSource()
    collector.take(source, [8], "accepted")
    collector.label(source, 7, 3, rest=False)  # in either order
    finish(collector)
    assert listed(collector) == [(k, True, False) for k in range(3, 8)] + [(8, True, True)]
    collector.label(source, 4, 8, rest=True)
    finish(collector)
    assert "Slice 8 kept the mask" in collector.message
    collector.label(source, 3, 7, rest=True)
    finish(collector)
    assert "Left out: slice 8, where the segment says otherwise." in collector.message
    assert [entry.slice for entry in collector.entries if not entry.label] == [0, 1, 2, 9, 10, 11]
    assert collector.entries[8].has_mask
    collector.label(source, 3, 7, rest=True)
    finish(collector)
    assert collector.message.startswith("Nothing new to take.")
    assert summary(collector.entries, "liver") == "5 liver by label, 1 liver with mask, 6 no liver, from 1 scan"


def test_nowhere_else_does_not_relabel_what_the_segment_shows(collector):
    collector.label(PlayedSource(), 5, 6, rest=True)
    finish(collector)
    assert [entry.slice for entry in collector.entries if not entry.label] == [0, 1, 2, 3, 9, 10, 11]
    assert collector.message.endswith("Left out: slices 4, 7 to 8, where the segment says otherwise.")
    collector.label(PlayedSource(), 5, 6, rest=True, leave_out=[7])  # as the user wants it
    finish(collector)
    assert [entry.slice for entry in collector.entries if not entry.label] == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_a_range_goes_into_the_set_that_was_open_at_the_click(collector):
    collector.create("first")
    collector.label(PlayedSource(), 3, 5, rest=False)
    collector.create("second")
    finish(collector)
    assert not collector.entries and collector.set.name == "second"
    assert [entry.slice for entry in TrainingSet.open(training_sets_folder() / "first").entries()] == [3, 4, 5]


@pytest.mark.parametrize("first, last", [(3, 9999), (TOTAL, 2), (-1, 2)])
def test_a_range_beyond_the_scan_is_refused(collector, first, last):
    collector.label(PlayedSource(), first, last, rest=False)
    finish(collector)
    assert "CT has slices 0 to 11, not" in collector.error and not collector.entries


def test_people_know_a_scan_by_its_volumes_name(collector):
    source = PlayedSource("chaos ct3")
    collector.take(source, [5], "edited")
    finish(collector)
    assert collector.entries[0].patient == "chaos ct3-1234"
    assert collector.scan_name("chaos ct3-1234") == "chaos ct3"
    assert collector.scan_name("chaos_ct3_ct-b3d86ae7") == "chaos_ct3_ct"  # of a set that is not open
    assert collector.scan_name("patient-7") == "patient-7"


def test_work_comes_in_steps_and_what_is_done_stays_when_it_is_cut_off(collector):
    collector.create("mine")
    collector.label(PlayedSource(), 0, 9, rest=False)
    for _ in range(4):
        collector.tick()
    done = sets.TrainingSet.open(collector.set.folder).entries()
    assert 0 < len(done) < 10
    assert finish(collector) >= 3


def test_two_scans_with_other_grids_in_one_set(collector):
    one, other = PlayedSource("A"), PlayedSource("B", (1.5, 1.5))
    other.stack = other.stack[:, :7, :5]
    other.segment = other.segment[:, :7, :5]
    for source in (one, other):
        collector.take(source, [5], "accepted")
    finish(collector)
    assert [entry.spacing for entry in collector.entries] == [(0.7, 0.8), (1.5, 1.5)]
    for entry, source in zip(collector.entries, (one, other), strict=True):
        image, mask = collector.set.load(entry)
        assert np.array_equal(image, source.stack[5]) and np.array_equal(mask, source.segment[5])
    assert summary(collector.entries, "liver").endswith("from 2 scans")


def test_ticks_stay(collector, store):
    collector.take(PlayedSource(), [4, 5], "edited")
    finish(collector)
    collector.set_active(collector.entries[:1], False)
    assert [entry.active for entry in Collector(Settings(store)).entries] == [False, True]
    assert summary(collector.entries, "liver") == "1 liver with mask, from 1 scan"


def test_what_counts_as_labelled_for_a_suggestion(collector):
    source = PlayedSource()
    collector.take(source, [4, 5], "edited")
    collector.label(source, 6, 8, rest=False)
    finish(collector)
    collector.exclude(source, 0)
    finish(collector)
    assert collector.labelled(source) == [0, 4, 5]  # a mere label says nothing of the outline


def test_a_scan_is_known_again_after_the_application_was_closed(collector, store):
    collector.take(PlayedSource(), [4], "edited")
    finish(collector)
    again, source = Collector(Settings(store)), PlayedSource()
    again.identify(source)
    finish(again)
    assert again.labelled(source) == [4]


def test_sets_are_made_chosen_and_remembered(collector, store, tmp_path):
    collector.create("left lobe")
    collector.create("spleens", SPLEEN)
    assert collector.structure == SPLEEN and Collector(Settings(store)).set.name == "spleens"
    assert [folder.name for folder in collector.folders()] == ["left lobe", "spleens"]
    collector.open(training_sets_folder() / "left lobe")
    assert collector.structure == LIVER
    collector.take(PlayedSource(), [5], "edited")
    finish(collector)
    collector.export(tmp_path / "moved.zip")
    collector.import_(tmp_path / "moved.zip")  # waits for what was clicked before
    assert finish(collector) > 2
    assert collector.message == "Opened moved.zip."
    assert collector.set.folder == training_sets_folder() / "moved" and listed(collector) == [(5, True, True)]


@pytest.mark.parametrize("name", ["", " ", "../elsewhere", ".hidden", "a/b"])
def test_names_that_are_no_folder_are_refused(collector, name):
    collector.create(name)
    assert collector.set is None and "not usable as a name" in collector.error


def test_a_name_that_is_taken_is_told(collector):
    collector.create("mine")
    collector.take(PlayedSource(), [5], "edited")
    finish(collector)
    collector.create("mine")
    assert collector.error and len(collector.entries) == 1


def test_a_damaged_set_is_one_line_and_the_others_can_be_opened(collector, store):
    collector.create("good")
    collector.create("bad")
    (collector.set.folder / "training_set.json").write_text("{")
    reopened = Collector(Settings(store))
    assert reopened.set is None and "damaged" in reopened.error and "\n" not in reopened.error
    reopened.open(training_sets_folder() / "good")
    assert reopened.set.name == "good" and not reopened.error


def test_a_full_disk_is_told_and_the_next_click_works(collector, monkeypatch):
    collector.create("mine")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = PlayedSource()
    with monkeypatch.context() as patched:
        patched.setattr(sets, "write_slice_file", full)
        collector.take(source, [5], "edited")
        finish(collector)
    assert "No space left" in collector.error and not collector.entries and not collector.message
    collector.take(source, [5], "edited")
    finish(collector)
    assert not collector.error and len(collector.entries) == 1


def test_a_lost_file_leaves_its_thumbnail_out_and_says_which(collector):
    collector.take(PlayedSource(), [5], "edited")
    finish(collector)
    entry = collector.entries[0]
    assert collector.thumbnail(entry).shape[2] == 3
    reopened = Collector(collector._settings)
    entry.file.unlink()
    recent_slice_file.cache_clear()
    assert reopened.thumbnail(entry) is None and entry.file.name in reopened.error


def test_pictures_keep_the_bodys_proportions_and_draw_the_outline():
    image = np.full((100, 100), 40, np.int16)
    mask = np.zeros((100, 100), np.uint8)
    mask[20:80, 20:80] = 1
    picture = slice_picture(image, [(mask, (255, 0, 0))], 50, spacing=(2.0, 1.0))
    assert picture.shape == (50, 25, 3)
    red = (picture == (255, 0, 0)).all(axis=2)
    assert red.any() and np.array_equal(red, outline(red | _filled(red)))
    assert ppm(picture).startswith(b"P6\n25 50\n255\n") and len(ppm(picture)) == len(b"P6\n25 50\n255\n") + 50 * 25 * 3


def _filled(outlined: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(outlined)
    filled = np.zeros_like(outlined)
    filled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return filled
