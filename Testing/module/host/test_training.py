"""A user's way through the tab Train on the phantom: collect slices, train on them, stop, resume, use the new model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicerhost.desktop import click

from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
from SAMMixLib.paths import STARTER, models_folder, training_sets_folder, trainings_folder
from SAMMixLib.worker.client import WorkerClient

TRAIN, MODELS = 2, 3  # the tabs
MAX_GAP = 0.2  # s of work between two events: 0.1, that a user does not feel, on a machine twice as slow

# What trains, itself, with so few steps that a test can wait for them.
SHORT = """
import dataclasses, pathlib, sys
from SAMMixLib.training import finetuning
quick = finetuning.FINE_TUNING["quick"]
finetuning.FINE_TUNING["quick"] = dataclasses.replace(quick, steps={steps}, views=1, batch_size=2, mask_batch_size=1)
"""
WORKER = (
    SHORT
    + """
from SAMMixLib.worker.server import serve
serve(pathlib.Path(sys.argv[-1]))
"""
)
COMMAND = (
    SHORT
    + """
from SAMMixLib.cli import main
sys.exit(main(sys.argv[1:]))
"""
)


def short_worker(steps: int = 4):
    return lambda: WorkerClient([sys.executable, "-c", WORKER.format(steps=steps)])


def weights(bundle: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in bundle.glob("*.safetensors")}


@pytest.fixture
def trainer(clinic, phantom, tmp_path):
    """The phantom with its result, the tab Train in front, and no training set yet."""
    for folder in (training_sets_folder(), trainings_folder()):
        shutil.rmtree(folder, ignore_errors=True)
    settings = clinic.session.settings
    settings.set("training_set", "")
    clinic.reopen()
    clinic.train = clinic.widget.trainTab
    clinic.train.training._start_worker = short_worker()
    clinic.load(phantom[0])
    clinic.segment()
    assert not clinic.session.error
    clinic.ui.tabs.currentIndex, clinic.ui.restCheckBox.checked = TRAIN, False
    clinic.ui.moreButton.collapsed = False
    yield clinic
    clinic.train.training.close()
    for folder in (training_sets_folder(), trainings_folder(), models_folder()):
        shutil.rmtree(folder, ignore_errors=True)
    settings.model = STARTER
    clinic.widget.modelsTab.refresh()
    clinic.ui.tabs.currentIndex = 0


def collected(clinic) -> list[tuple[int, str, bool]]:
    """(slice, kind, ticked) of every row of the list, in the order of slices."""
    table = clinic.ui.slicesTable
    rows = [[table.item(row, column) for column in range(4)] for row in range(table.rowCount)]
    checked = sys.modules["qt"].Qt.Checked
    return sorted((int(row[2].text()), row[3].text(), row[0].checkState() == checked) for row in rows)


def settle(clinic):
    """Wait until what was clicked is on the disk and in the list, with its thumbnails."""
    train = clinic.train
    return clinic.wait(lambda: not train.collector.busy and not train._table.behind, 20)


def take(clinic, ks) -> None:
    for k in ks:
        clinic.tab.case.jump(k)
        click(clinic.ui.useSliceButton)
        settle(clinic)


def test_without_a_result_only_labels_can_be_given_and_the_panel_says_why(clinic, phantom):
    clinic.load(phantom[0])
    ui = clinic.ui
    assert "segment the liver first" in ui.trainReasonLabel.text
    assert not ui.useSliceButton.enabled and not ui.useEditedButton.enabled and not ui.suggestButton.enabled
    assert ui.emptySliceButton.enabled and ui.rangeButton.enabled


def test_collect_untick_and_find_all_again(trainer, phantom):
    clinic, ui, case = trainer, trainer.ui, trainer.tab.case
    liver = np.flatnonzero(clinic.liver().any(axis=(1, 2))).tolist()
    assert ui.trainButton.enabled is False
    take(clinic, liver[:2])
    case.jump(0)
    click(ui.emptySliceButton)
    settle(clinic)
    click(ui.useEditedButton)
    assert "No slice is edited" in ui.collectLabel.text
    clinic.paint(liver[2])
    click(ui.useEditedButton)
    settle(clinic)
    kinds = {0: "no liver"} | dict.fromkeys(liver[:3], "liver with mask")
    assert collected(clinic) == [(k, kinds[k], True) for k in sorted(kinds)]

    case.jump(liver[0])
    click(ui.fromHereButton)
    case.jump(liver[4])
    click(ui.toHereButton)
    ui.restCheckBox.checked, clinic.desktop.answer = True, "Label them"
    click(ui.rangeButton)
    gap = settle(clinic)
    between = range(liver[0], liver[4] + 1)
    kinds = {k: "liver by label" if k in between else "no liver" for k in range(16)} | kinds
    assert collected(clinic) == [(k, kinds[k], True) for k in range(16)]
    assert "kept the mask" in ui.collectLabel.text and gap.work < MAX_GAP

    qt = sys.modules["qt"]
    row = next(row for row in range(16) if int(ui.slicesTable.item(row, 2).text()) == liver[1])
    ui.slicesTable.item(row, 0).setCheckState(qt.Qt.Unchecked)
    settle(clinic)
    expected = [(k, kinds[k], k != liver[1]) for k in range(16)]
    assert collected(clinic) == expected
    ui.slicesTable.sortItems(3)
    ui.slicesTable.cellDoubleClicked.emit(0, 0)
    assert case.current_slice() == int(ui.slicesTable.item(0, 2).text())

    mask = clinic.liver()[liver[2]].copy()
    assert mask[:5, :5].all()
    clinic.reopen()
    clinic.train = clinic.widget.trainTab
    settle(clinic)
    assert collected(clinic) == expected
    entry = next(entry for entry in clinic.train.collector.entries if entry.slice == liver[2])
    assert np.array_equal(TrainingSet.open(training_sets_folder() / "liver").load(entry)[1], mask)
    assert [kind for kind, _ in clinic.desktop.dialogs] == ["choose"]  # the rest showed liver, too


def test_a_slice_that_shows_the_liver_is_no_slice_without_it_until_the_user_says_so(trainer):
    clinic, ui = trainer, trainer.ui
    clinic.tab.case.jump(6)
    clinic.desktop.answer = "Cancel"
    click(ui.emptySliceButton)
    settle(clinic)
    assert clinic.desktop.choices == ["Label it", "Cancel"] and collected(clinic) == []
    clinic.desktop.answer = "Label it"
    click(ui.emptySliceButton)
    settle(clinic)
    assert collected(clinic) == [(6, "no liver", True)]
    clinic.tab.case.jump(0)
    click(ui.emptySliceButton)
    settle(clinic)
    assert len(clinic.desktop.dialogs) == 2 and len(collected(clinic)) == 2


def test_labels_that_the_segment_speaks_against_are_asked_for(trainer):
    clinic, ui = trainer, trainer.ui
    liver = np.flatnonzero(clinic.liver().any(axis=(1, 2))).tolist()
    assert liver[0] >= 2
    ui.fromSpinBox.value, ui.toSpinBox.value = liver[0] - 2, liver[2]
    for answer, taken in (("Cancel", []), ("Leave them out", liver[:3]), ("Label them", range(liver[0] - 2, liver[3]))):
        clinic.desktop.answer = answer
        click(ui.rangeButton)
        settle(clinic)
        assert [k for k, *_ in collected(clinic)] == [*taken]
    asked = [text for _, text in clinic.desktop.dialogs]
    assert len(asked) == 3 and f"no liver in slices {liver[0] - 2} to {liver[0] - 1}" in asked[0]


def test_what_was_said_of_a_run_gives_way_to_what_is_collected(trainer):
    clinic, ui = trainer, trainer.ui
    clinic.session.error = "The scan was removed"
    clinic.desktop.app.processEvents()
    take(clinic, [6])
    assert ui.collectLabel.text == "Taken: slice 6 with liver." and "removed" not in ui.hintLabel.text


def test_a_second_scan_and_another_set(trainer, phantom, tmp_path):
    clinic, ui = trainer, trainer.ui
    take(clinic, [6])
    turned = sitk.DICOMOrient(sitk.ReadImage(str(phantom[0])), "PIL")
    sitk.WriteImage(turned, str(tmp_path / "turned.nrrd"))
    clinic.load(tmp_path / "turned.nrrd")
    clinic.tab.case.jump(6)
    click(ui.emptySliceButton)
    settle(clinic)
    assert ui.setSummaryLabel.text == "1 liver with mask, 1 no liver, from 2 scans"
    images = {entry.provenance["volume"]: clinic.train.collector.set.load(entry)[0] for entry in
              clinic.train.collector.entries}  # fmt: skip
    assert np.array_equal(images["phantom"], images["turned"])

    ui.newSetButton.checked = True
    ui.setNameEdit.text = "spleens"
    ui.structureSelector.currentIndex = ui.structureSelector.findData("spleen")
    click(ui.createSetButton)
    settle(clinic)
    assert ui.emptySliceButton.text == "No spleen here" and collected(clinic) == []
    ui.setSelector.currentIndex = ui.setSelector.findText("liver")
    ui.setSelector.activated.emit(ui.setSelector.currentIndex)
    settle(clinic)
    assert ui.emptySliceButton.text == "No liver here" and len(collected(clinic)) == 2
    clinic.desktop.file = str(tmp_path / "moved.zip")
    click(ui.exportSetButton)
    click(ui.openSetButton)
    settle(clinic)
    assert clinic.train.collector.set.folder == training_sets_folder() / "moved" and len(collected(clinic)) == 2


def test_bad_sets_are_told_before_anything_starts(trainer):
    clinic = trainer
    take(clinic, [5, 6])
    click(clinic.ui.trainButton)
    assert "Every ticked slice shows the liver" in clinic.ui.trainStatusLabel.text
    assert not clinic.train.training.busy and not clinic.ui.resumeButton.visible


def test_suggest_jumps_and_says_why(trainer):
    clinic = trainer
    take(clinic, [6])
    clinic.train._source = ()  # as after a restart: the scan has to be known again
    clinic.tab.case.jump(6)
    click(clinic.ui.suggestButton)
    clinic.wait(lambda: clinic.session.suggested is not None, 20)
    clinic.wait(lambda: clinic.ui.collectLabel.text.startswith("Slice "), 5)
    k = clinic.session.suggested[1]
    assert k != 6 and clinic.tab.case.current_slice() == k
    assert clinic.ui.collectLabel.text.startswith(f"Slice {k}: ")


def collect_all(clinic) -> None:
    """Three slices with a mask, two without liver."""
    take(clinic, [4, 5, 6])
    for k in (0, 1):
        clinic.tab.case.jump(k)
        click(clinic.ui.emptySliceButton)
        settle(clinic)


def screenshot(clinic, folder: Path) -> None:
    """The tab at its full height; for the manual where ``SAMMIX_SCREENSHOTS`` says so."""
    path = Path(os.environ.get("SAMMIX_SCREENSHOTS", folder)).resolve() / "module_train.jpg"
    clinic.tab.case.jump(6)
    clinic.desktop.window.resize(1240, 1140)
    for _ in range(10):
        clinic.desktop.app.processEvents()
    clinic.desktop.screenshot(path)
    clinic.desktop.window.resize(1240, 900)
    assert path.stat().st_size < 300_000


def test_train_stop_resume_and_use_the_new_model(trainer, phantom, tmp_path):
    clinic, ui, training = trainer, trainer.ui, trainer.train.training
    training._start_worker = short_worker(steps=20)
    collect_all(clinic)
    ui.modelNameEdit.text = "ours"
    click(ui.trainButton)
    gap = clinic.wait(lambda: training.figures or training.error, 120)
    assert ui.trainButton.text == "Stop" and gap.work < MAX_GAP
    clinic.segment()  # meanwhile
    assert not clinic.session.error and training.busy
    click(ui.trainButton)
    clinic.wait(lambda: not training.busy, 10)
    assert ui.resumeButton.visible and "was stopped" in ui.trainStatusLabel.text

    clinic.reopen()  # and nothing is left but what is on the disk
    ui, again = clinic.ui, clinic.widget.trainTab.training
    clinic.train, again._start_worker = clinic.widget.trainTab, short_worker(steps=20)
    ui.tabs.currentIndex = TRAIN
    clinic.wait(lambda: ui.resumeButton.visible, 5)
    assert again.figures == training.figures
    click(ui.resumeButton)
    clinic.wait(lambda: not again.busy, 300)
    assert not again.error and again.outcome and ui.outcomeFrame.visible
    assert not ui.resumeButton.visible and not ui.beforeLabel.pixmap.isNull()
    assert "Before: Dice" in ui.beforeCaption.text and "After: Dice" in ui.afterCaption.text
    assert {each["step"] for each in again.figures} >= {10, 20}
    screenshot(clinic, tmp_path)

    better = again.outcome.better
    click(ui.useModelButton)
    assert [kind for kind, _ in clinic.desktop.dialogs] == ([] if better else ["confirmYesNo"])
    assert clinic.session.settings.model == "ours" and not ui.outcomeFrame.visible
    clinic.segment()
    assert not clinic.session.error and clinic.liver().any()

    ui.tabs.currentIndex = MODELS
    ui.modelsTable.selectRow(1)
    assert "Trained from starter" in ui.modelLabel.text and ui.useParentButton.visible
    clinic.desktop.file = str(tmp_path / "ours.zip")
    click(ui.exportModelButton)
    assert (tmp_path / "ours.zip").is_file()
    ui.modelsTable.selectRow(0)
    before = clinic.liver().copy()
    click(ui.compareModelButton)
    clinic.wait(lambda: not clinic.session.busy and ui.compareLabel.text.startswith("Dice"), 120)
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert "phantom by starter" in names and np.array_equal(clinic.liver(), before)
    ui.modelsTable.selectRow(1)
    click(ui.useParentButton)
    assert clinic.session.settings.model == "starter"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_training_goes_on_to_the_weights_of_the_command_line(trainer, tmp_path):
    clinic, ui, training = trainer, trainer.ui, trainer.train.training
    collect_all(clinic)
    click(ui.trainButton)
    clinic.wait(lambda: training.stage()[1] or not training.busy, 300)
    assert not training.error
    os.kill(training.worker.pid, signal.SIGKILL)
    clinic.wait(lambda: not training.busy, 10)
    assert "ended unexpectedly" in ui.trainStatusLabel.text and "Traceback" not in ui.trainStatusLabel.text
    click(ui.resumeButton)
    clinic.wait(lambda: not training.busy, 300)
    assert training.outcome and not training.error
    command = [sys.executable, "-c", COMMAND.format(steps=4), "train", "--seed", "0"]
    command += ["--slices", str(training_sets_folder() / "liver"), "-o", str(tmp_path / "run")]
    subprocess.run(command, check=True)
    assert weights(tmp_path / "run" / "bundle") == weights(Path(training.outcome.bundle)) != {}
    click(ui.discardButton)
    assert not training.request and not ui.outcomeFrame.visible and not list(trainings_folder().iterdir())


def test_a_thousand_slices_do_not_hold_up_the_windows(trainer):
    clinic, collector = trainer, trainer.train.collector
    collector.create("many")
    image = np.zeros((16, 64, 64), np.int16)
    for n in range(40):
        labelled = LabelledSlices(f"CT-{n}", range(16), image, (0.7, 0.7), [True] * 16, None, {"volume": f"CT {n}"})
        collector.set.add(labelled)
    clinic.tab.case.jump(3)
    click(clinic.ui.emptySliceButton)
    gap = settle(clinic)
    assert len(collected(clinic)) == 641
    assert gap.work < MAX_GAP, gap
