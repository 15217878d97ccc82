"""A user's way through the module on the phantom: segment, look, correct, save, and what can go wrong."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicerhost.desktop import click, pick

from SAMMixLib.models.registry import import_model, remove_model
from SAMMixLib.module.scene.boxes import readBox
from SAMMixLib.module.scene.hygiene import helper, helpers
from SAMMixLib.module.scene.segments import findSegment
from SAMMixLib.module.session.session import State
from SAMMixLib.paths import models_folder, starter_folder

MAX_GAP = 0.2  # s of work between two events: 0.1, that a user does not feel, on a machine twice as slow
MAX_PAUSE = 3.0  # s that pass between two events, on a machine that others use too


@pytest.fixture
def segmented(clinic, phantom):
    """The phantom with its result."""
    clinic.load(phantom[0])
    clinic.segment()
    assert not clinic.session.error
    return clinic


def nodes() -> dict[str, int]:
    """The nodes that hold a user's data, each with the time of its last change."""
    kinds = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLChartNode")
    return {node.GetID(): node.GetMTime() for kind in kinds for node in slicer.util.getNodesByClass(kind)}


def drawn() -> list[str]:
    """What a model's result has left in the scene: of a segment that is only there the area along z is charted."""
    return [role for role in (node.GetAttribute("SAMMix.role") for node in helpers()) if role in ("cam", "box")]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_without_a_volume_there_is_nothing_to_press(clinic):
    assert not clinic.ui.segmentButton.enabled
    assert clinic.ui.startLabel.visible and "Load a CT" in clinic.ui.segmentButton.toolTip
    assert not clinic.desktop.dialogs


def test_segment_liver(clinic, model, phantom, by_command_line):
    clinic.load(phantom[0])
    assert clinic.ui.segmentButton.text == "Segment Liver"
    seen = set()
    click(clinic.ui.segmentButton)

    def done():
        if clinic.session.busy:
            seen.add((clinic.session.state, clinic.ui.segmentButton.text, clinic.ui.progressBar.visible))
        return not clinic.session.busy

    gap = clinic.wait(done, 120)
    assert not clinic.session.error
    assert (State.RUNNING, "Cancel", True) in seen
    assert all((text, bar) == ("Cancel", True) for _, text, bar in seen)
    assert not clinic.ui.progressBar.visible
    assert gap.work < MAX_GAP and gap.wall < MAX_PAUSE
    assert np.array_equal(clinic.liver(), by_command_line(phantom[0]))
    assert dice(clinic.liver(), phantom[1]) > 0.85  # on slices 20 mm apart
    assert clinic.ui.resultLabel.text.startswith("Liver ")
    assert clinic.ui.segmentationSelector.currentNode() is clinic.tab.case.segmentationNode
    assert not clinic.desktop.dialogs


@pytest.mark.parametrize("state", [State.STARTING, State.LOADING, State.RUNNING])
def test_cancel(clinic, model, phantom, state):
    clinic.load(phantom[0])
    if state is not State.RUNNING:
        clinic.session.unload()
    before = nodes()
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is state and (state is not State.RUNNING or clinic.session.stage()[1]))
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: not clinic.session.busy)
    assert nodes() == before and not clinic.session.error
    clinic.segment()
    assert clinic.liver().any()


def test_overlays_come_and_go_with_the_users_own_foreground(clinic, phantom):
    own = clinic.load(phantom[0])
    other = slicer.modules.volumes.logic().CloneVolume(own, "PET")
    clinic.view.SetForegroundVolumeID(other.GetID())
    clinic.view.SetForegroundOpacity(0.25)
    clinic.segment()
    cam = helper(own, "cam")
    assert clinic.view.GetForegroundVolumeID() == cam.GetID()
    assert clinic.view.GetForegroundOpacity() == pytest.approx(0.25)
    clinic.ui.opacitySlider.value = 0.7
    assert clinic.view.GetForegroundOpacity() == pytest.approx(0.7)
    clinic.ui.thresholdSlider.value = 0.5
    assert cam.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.5)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cam)
    assert legend.GetVisibility()
    clinic.ui.legendCheckBox.checked = False
    assert not legend.GetVisibility()
    clinic.ui.heatMapCheckBox.checked = False
    assert clinic.view.GetForegroundVolumeID() == other.GetID()
    assert clinic.view.GetForegroundOpacity() == pytest.approx(0.25)


def test_the_box_follows_the_slice_and_the_chart_jumps(segmented):
    clinic = segmented
    with_box = next(k for k, boxes in clinic.findings.boxes.items() if boxes)
    without = next(k for k in range(clinic.findings.slices_total) if not clinic.findings.boxes.get(k))
    box = helper(clinic.tab.case.volumeNode, "box").GetDisplayNode()
    clinic.tab.plot.click(with_box)
    assert clinic.tab.case.current_slice() == with_box and box.GetVisibility()
    assert clinic.ui.sliceLabel.text.startswith(f"Slice {with_box}: liver probability")
    clinic.tab.plot.click(without)
    assert clinic.tab.case.current_slice() == without and not box.GetVisibility()
    clinic.tab.plot.click(with_box)
    clinic.ui.boxCheckBox.checked = False
    assert not box.GetVisibility()
    clinic.ui.boxCheckBox.checked = True
    assert box.GetVisibility()


def test_next_to_review_goes_to_the_worst_first(segmented):
    clinic = segmented
    clinic.findings.review = [9, 5]
    clinic.tab.update()
    seen = []
    for _ in range(3):
        click(clinic.ui.reviewButton)
        seen.append(clinic.tab.case.current_slice())
    assert seen == [9, 5, 9]


def drag(clinic, k: int, shrink: float = 0.5) -> None:
    """Drag the corner of the box in slice k towards its middle, and let go."""
    clinic.tab.case.jump(k)
    box = helper(clinic.tab.case.volumeNode, "box")
    width, height, depth = box.GetSize()
    box.SetSize(width * shrink, height * shrink, depth)
    box.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)


def test_drag_a_box_and_undo(segmented):
    clinic = segmented
    before = clinic.liver().copy()
    k = int(np.argmax(before.sum(axis=(1, 2))))
    clinic.ui.editBoxButton.checked = True
    saved, box = clinic.ui.segmentEditor._undo_saves, clinic.findings.boxes[k]
    drag(clinic, k)
    clinic.wait(lambda: not clinic.session.busy)
    after = clinic.liver()
    assert 0 < after[k].sum() < before[k].sum()
    assert np.array_equal(np.delete(after, k, 0), np.delete(before, k, 0))
    assert clinic.findings.corrected == {k} and clinic.findings.boxes[k] != box
    assert clinic.ui.segmentEditor._undo_saves == saved + 1
    clinic.ui.segmentEditor.undo()
    assert np.array_equal(clinic.liver(), before)
    clinic.wait(lambda: not clinic.findings.corrected, 5)
    assert clinic.findings.boxes[k] == box
    shown = helper(clinic.tab.case.volumeNode, "box")
    clinic.wait(lambda: readBox(shown, clinic.tab.case.volumeNode) == (k, box[0]), 5)
    clinic.ui.segmentEditor.redo()
    clinic.wait(lambda: clinic.findings.corrected == {k}, 5)
    assert np.array_equal(clinic.liver(), after) and clinic.findings.boxes[k] != box


def test_no_liver_here_and_liver_here(segmented):
    clinic = segmented
    k = int(np.argmax(clinic.liver().sum(axis=(1, 2))))
    clinic.tab.case.jump(k)
    click(clinic.ui.noLiverButton)
    clinic.wait(lambda: not clinic.session.busy)
    assert not clinic.liver()[k].any()
    assert not helper(clinic.tab.case.volumeNode, "box").GetDisplayNode().GetVisibility()
    click(clinic.ui.liverButton)
    clinic.wait(lambda: not clinic.session.busy)
    assert clinic.liver()[k].any()
    assert "1 corrected" in clinic.ui.resultLabel.text
    assert not clinic.desktop.dialogs


@pytest.mark.parametrize("answer", ["Keep mine", "Replace", "Cancel"])
def test_a_new_run_asks_before_it_overwrites_edits(segmented, answer):
    clinic = segmented
    before = clinic.liver().copy()
    clinic.paint(2)
    clinic.desktop.answer = answer
    clinic.segment()
    assert [kind for kind, _ in clinic.desktop.dialogs] == ["choose"]
    assert clinic.desktop.choices == ["Keep mine", "Replace", "Cancel"]
    assert "slice 2 by hand" in clinic.desktop.dialogs[0][1]
    assert clinic.liver()[2, :5, :5].all() == (answer != "Replace")
    assert np.array_equal(np.delete(clinic.liver(), 2, 0), np.delete(before, 2, 0))


def test_after_an_edit_the_volume_is_measured_again(segmented):
    clinic = segmented
    before = clinic.ui.resultLabel.text
    for k in range(4):
        clinic.paint(k)
    clinic.wait(lambda: clinic.ui.resultLabel.text != before, 5)
    assert "slices 0 to" in clinic.ui.resultLabel.text


def test_the_current_slice_only(clinic, phantom):
    clinic.load(phantom[0])
    k = int(np.argmax(phantom[1].sum(axis=(1, 2))))
    clinic.tab.case.jump(k)
    clinic.ui.scopeSelector.currentIndex = 1
    clinic.segment()
    clinic.ui.scopeSelector.currentIndex = 0
    assert not clinic.session.error
    assert np.flatnonzero(clinic.liver().any(axis=(1, 2))).tolist() == [k]


def test_the_heat_map_of_the_other_slices_stays_when_one_is_segmented_again(segmented):
    clinic = segmented
    cam = helper(clinic.tab.case.volumeNode, "cam")
    before = slicer.util.arrayFromVolume(cam).copy()
    assert before.any(axis=(1, 2)).sum() > 3
    k = int(np.argmax(clinic.liver().sum(axis=(1, 2))))
    clinic.tab.case.jump(k)
    clinic.ui.scopeSelector.currentIndex = 1
    clinic.segment()
    clinic.ui.scopeSelector.currentIndex = 0
    after = slicer.util.arrayFromVolume(cam)
    assert np.array_equal(np.delete(after, k, 0), np.delete(before, k, 0)) and after[k].any()


def test_the_mouse_is_for_the_box_or_for_an_effect(segmented):
    clinic, editor = segmented, segmented.ui.segmentEditor
    clinic.ui.tabs.currentIndex = 1
    clinic.tab.case.jump(int(np.argmax(clinic.liver().sum(axis=(1, 2)))))
    clinic.tab.update()
    editor.setActiveEffectByName("Paint")
    click(clinic.ui.editBoxButton)
    assert clinic.ui.editBoxButton.checked and editor.activeEffect() is None
    editor.setActiveEffectByName("Erase")
    clinic.wait(lambda: not clinic.ui.editBoxButton.checked, 5)
    assert editor.activeEffect().name == "Erase"
    clinic.ui.tabs.currentIndex = 0
    assert editor.activeEffect() is None, "where no brush is in sight, a click does not paint"


def test_two_volumes_each_with_their_own(segmented, phantom):
    clinic = segmented
    first, first_liver = clinic.tab.case.volumeNode, clinic.tab.case.segmentationNode
    second = clinic.load(phantom[0])
    pick(clinic.ui.segmentationSelector, None)
    assert clinic.view.GetBackgroundVolumeID() == second.GetID()
    assert not helper(first, "box").GetDisplayNode().GetVisibility()
    assert not clinic.ui.resultLabel.visible and not clinic.ui.resultFrame.visible
    clinic.segment()
    assert clinic.tab.case.segmentationNode is not first_liver
    pick(clinic.ui.volumeSelector, first)
    assert clinic.ui.resultLabel.text.startswith("Liver")
    assert not clinic.ui.editBoxButton.enabled  # the model holds the second scan
    assert "press Segment Liver" in clinic.ui.hintLabel.text


def test_save_close_and_reload(segmented, tmp_path):
    clinic = segmented
    before, name = clinic.liver().copy(), clinic.tab.case.volumeNode.GetName()
    slicer.util.saveNode(clinic.tab.case.segmentationNode, str(tmp_path / "liver.seg.nrrd"))
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    clinic.clear()
    assert clinic.tab.case is None and not clinic.ui.segmentButton.enabled
    slicer.util.loadNodeFromFile(str(tmp_path / "scene.mrml"), "SceneFile", {})
    clinic.desktop.app.processEvents()
    assert clinic.tab.case.volumeNode.GetName() == name and not drawn()
    assert np.array_equal(clinic.liver(), before)
    clinic.segment()
    assert not clinic.session.error and not clinic.desktop.dialogs  # nothing was edited: nothing to ask
    assert np.array_equal(clinic.liver(), before)


def test_the_segment_editor_edits_what_was_read_with_a_scene(segmented, tmp_path):
    clinic = segmented
    slicer.util.saveNode(clinic.tab.case.segmentationNode, str(tmp_path / "liver.seg.nrrd"))
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    clinic.clear()
    clinic.reopen()  # Slicer was started anew: its editor knows of no segmentation yet
    slicer.util.loadNodeFromFile(str(tmp_path / "scene.mrml"), "SceneFile", {})
    clinic.desktop.app.processEvents()
    editor = clinic.ui.segmentEditor
    assert editor.segmentationNode() is clinic.tab.case.segmentationNode
    clinic.paint(2)
    painted = clinic.liver().copy()
    clinic.desktop.answer = "Replace"
    clinic.segment()
    assert not np.array_equal(clinic.liver(), painted)
    editor.undo()
    assert np.array_equal(clinic.liver(), painted)


def test_closing_the_scene_during_a_run(clinic, phantom):
    clinic.load(phantom[0])
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    clinic.clear()
    assert not clinic.session.busy and not clinic.session.loaded
    clinic.load(phantom[0])
    clinic.segment()
    assert clinic.liver().any()


def test_the_volume_is_removed_during_a_run(clinic, phantom):
    volume = clinic.load(phantom[0])
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    slicer.mrmlScene.RemoveNode(volume)
    clinic.wait(lambda: not clinic.session.busy)
    assert "removed" in clinic.session.error or not clinic.session.error
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_what_was_drawn_goes_with_the_volume(segmented, phantom):
    clinic = segmented
    first = clinic.tab.case.volumeNode
    clinic.load(phantom[0])
    clinic.segment()
    second = len(helpers()) - len(helpers(first))
    slicer.mrmlScene.RemoveNode(first)
    assert len(helpers()) == second and clinic.view.GetForegroundVolumeID()
    slicer.mrmlScene.RemoveNode(clinic.tab.case.volumeNode)
    assert not helpers() and not clinic.view.GetForegroundVolumeID()
    clinic.tab.plot.mrmlPlotViewNode().Modified()
    assert clinic.tab.case is None and not clinic.session.error


def test_a_volume_without_voxels_is_told(clinic):
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    clinic.wait(lambda: clinic.tab.case is not None, 5)
    assert clinic.ui.noticeLabel.text == "empty: holds no voxels; load it again."
    assert not clinic.ui.segmentButton.enabled


def test_the_module_can_be_reloaded(segmented):
    clinic = segmented
    before, old = clinic.liver().copy(), clinic.session
    pid = worker_pid(clinic)
    clinic.reopen()
    assert not old.loaded and not drawn() and not clinic.view.GetForegroundVolumeID()
    clinic.wait(lambda: not Path(f"/proc/{pid}").exists(), 5)
    assert np.array_equal(clinic.liver(), before)
    clinic.segment()
    assert np.array_equal(clinic.liver(), before)
    roles = [node.GetAttribute("SAMMix.role") for node in helpers()]
    assert len(roles) == len(set(roles))


def worker_pid(clinic) -> int:
    clinic.session.warm_up()
    clinic.wait(lambda: clinic.session.worker.pid is not None)
    return clinic.session.worker.pid


linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


def test_a_killed_worker(clinic, phantom):
    clinic.load(phantom[0])
    before = nodes()
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING and clinic.session.stage()[1])
    os.kill(worker_pid(clinic), signal.SIGKILL)
    clinic.wait(lambda: not clinic.session.busy, 10)
    clinic.tab.update()
    assert clinic.session.error and clinic.ui.statusLabel.visible
    assert "Traceback" not in clinic.session.error and nodes() == before
    clinic.segment()
    assert not clinic.session.error and clinic.liver().any()


@linux
def test_out_of_memory(clinic, model, phantom, tmp_path):
    import resource

    clinic.load(phantom[0])
    clinic.segment()
    assert not clinic.session.error
    pid = worker_pid(clinic)
    # One large allocation fails, not the small ones of libraries that end the process for want of them.
    large = tmp_path / "large.nrrd"
    hu = np.full((256, 512, 512), -1000, np.int16)
    hu[:, 128:384, 128:384] = 50
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(large), useCompression=True)
    clinic.load(large)
    before = nodes()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    now = pages * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (now + (30 << 20), now + (30 << 20)))
    clinic.segment()
    assert "memory" in clinic.session.error and nodes() == before
    clinic.session.unload()
    clinic.load(phantom[0])
    clinic.segment()
    assert not clinic.session.error and clinic.liver().any()


@linux
def test_a_full_disk(clinic, model, phantom):
    clinic.load(phantom[0])
    worker_pid(clinic)
    before = nodes()
    scan = clinic.session.worker.folder / "volume.nrrd"
    scan.unlink(missing_ok=True)
    scan.symlink_to("/dev/full")
    clinic.segment()
    assert "No space left" in clinic.session.error and nodes() == before
    scan.unlink()
    clinic.segment()
    assert not clinic.session.error and clinic.liver().any()


def test_a_damaged_model_can_be_seen_and_deleted(clinic, model, phantom):
    folder = models_folder() / "damaged"
    shutil.copytree(starter_folder(), folder)
    weights = folder / "decoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 0xFF
    weights.write_bytes(content)
    clinic.widget.modelsTab.refresh()
    clinic.load(phantom[0])
    before = nodes()
    clinic.ui.modelSelector.currentIndex = clinic.ui.modelSelector.findData("damaged")
    clinic.ui.modelSelector.activated.emit(clinic.ui.modelSelector.currentIndex)
    clinic.segment()
    assert "changed since it was written" in clinic.session.error and nodes() == before
    clinic.ui.modelsTable.selectRow(1)
    click(clinic.ui.verifyModelButton)
    assert "changed since it was written" in clinic.ui.verifyLabel.text
    click(clinic.ui.deleteModelButton)
    assert not folder.exists() and clinic.session.settings.model == "starter"
    clinic.segment()
    assert not clinic.session.error


def test_import_a_model_whose_name_is_taken(clinic, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", starter_folder())
    clinic.desktop.file, clinic.desktop.typed = archive, ""
    click(clinic.ui.importModelButton)  # and the user thinks better of it
    assert "A model of the name starter exists" in clinic.desktop.dialogs[-1][1]
    assert clinic.ui.modelsTable.rowCount == 1
    clinic.desktop.typed = "mine"
    click(clinic.ui.importModelButton)
    assert clinic.ui.modelsTable.rowCount == 2 and not any("--" in text for _, text in clinic.desktop.dialogs)
    clinic.ui.modelsTable.selectRow(1)
    assert "CC BY-SA" in clinic.ui.modelLabel.text and clinic.ui.deleteModelButton.enabled
    click(clinic.ui.deleteModelButton)
    assert clinic.ui.modelsTable.rowCount == 1


def test_a_model_that_is_gone_leaves_the_table_whole(clinic):
    """The selection changes while the table is filled."""
    import_model(starter_folder(), "mine")
    clinic.widget.modelsTab.refresh()
    clinic.ui.modelsTable.selectRow(1)
    remove_model("mine")
    clinic.widget.modelsTab.refresh()
    assert clinic.ui.modelsTable.rowCount == 1 and clinic.ui.modelLabel.text


@linux
def test_unload_gives_the_memory_back(segmented):
    clinic = segmented
    pid = worker_pid(clinic)
    clinic.ui.optionsButton.collapsed = False
    click(clinic.ui.unloadButton)
    clinic.ui.optionsButton.collapsed = True
    clinic.wait(lambda: not Path(f"/proc/{pid}").exists(), 5)
    assert not clinic.session.loaded and not clinic.ui.unloadButton.enabled
    assert not clinic.ui.editBoxButton.enabled


def test_a_script_needs_no_panel(clinic, phantom):
    from SAMMix import SAMMixLogic

    volume = slicer.util.loadVolume(str(phantom[0]))
    logic = SAMMixLogic()
    try:
        segmentation = logic.process(volume)
        assert findSegment(segmentation)
        photo = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        with pytest.raises(RuntimeError, match="empty: holds no voxels"):
            logic.process(photo)
    finally:
        logic.close()
