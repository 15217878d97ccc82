"""What a user sees of the panel and of the views, before a result, after it, and when the module is left."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from PySide6 import QtCore, QtWidgets
from slicerhost.desktop import click, pick
from slicerhost.pythonqt import get

from SAMMixLib.module.scene.hygiene import helper
from SAMMixLib.module.scene.segments import findSegment
from SAMMixLib.module.scene.surface import SURFACE
from SAMMixLib.module.session.session import State
from SAMMixLib.structure import SPLEEN

SEGMENT, CORRECT, TRAIN, MODELS = range(4)  # the tabs
TAB_HEIGHT = 240  # pixels that a tab has in Slicer's window of 1280 x 780
JARGON = re.compile(r"prompt|IoU|p\(liver\)|\bCAM\b|classifier|activation|embedding|inference|epoch|held out|\bloss\b")


@pytest.fixture
def segmented(clinic, phantom):
    clinic.load(phantom[0])
    clinic.segment()
    assert not clinic.session.error
    yield clinic
    clinic.ui.tabs.currentIndex = SEGMENT


@pytest.fixture
def second(phantom, tmp_path):
    """Another scan, far from the first."""
    image = sitk.ReadImage(str(phantom[0]))
    image.SetOrigin(np.add(image.GetOrigin(), (0, 0, 2000)).tolist())
    sitk.WriteImage(image, str(tmp_path / "second.nrrd"))
    return tmp_path / "second.nrrd"


def views() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def seen(widget) -> list[str]:
    """The texts that a user can read in a part of the panel, tooltips apart."""
    kinds = (QtWidgets.QLabel, QtWidgets.QAbstractButton, QtWidgets.QComboBox)
    found = [each for kind in kinds for each in widget.findChildren(kind) if each.isVisibleTo(widget)]
    texts = [get(each, "currentText") if isinstance(each, QtWidgets.QComboBox) else get(each, "text") for each in found]
    return [text for text in texts if text]


def bottom(clinic, widget) -> int:
    """Pixels from the top of the tabs to the lower end of a widget."""
    return widget.mapTo(clinic.ui.tabs, QtCore.QPoint(0, get(widget, "height"))).y()


def surface(clinic):
    node = clinic.tab.case.segmentationNode
    segment = node.GetSegmentation().GetSegment(findSegment(node))
    return segment.GetRepresentation(SURFACE)


# Before a result, and after it


def test_before_a_result_nothing_of_it_is_shown(clinic, phantom):
    ui = clinic.ui
    for loaded in (False, True):
        if loaded:
            clinic.load(phantom[0])
        assert ui.startLabel.isVisibleTo(ui.tabs) != loaded
        for widget in (ui.resultLabel, ui.resultFrame, ui.plotFrame, ui.opacitySlider, ui.sliceLabel, ui.progressBar):
            assert not widget.isVisibleTo(ui.tabs), widget.name
    assert ui.startLabel.text == "Load a CT, or try Sample Data."
    clinic.segment()
    for widget in (ui.resultLabel, ui.resultFrame, ui.plotFrame, ui.sliceLabel):
        assert widget.isVisibleTo(ui.tabs), widget.name


def test_a_volume_that_is_loaded_is_chosen_and_the_button_is_ready(clinic, phantom, second):
    assert not clinic.ui.segmentButton.enabled
    first = slicer.util.loadVolume(str(phantom[0]))
    clinic.wait(lambda: clinic.ui.segmentButton.enabled, 5)
    assert clinic.ui.volumeSelector.currentNode() is first
    other = slicer.util.loadVolume(str(second))
    clinic.wait(lambda: clinic.ui.volumeSelector.currentNode() is other, 5)


def test_a_range_of_slices_is_of_one_scan(clinic, phantom, second):
    ui = clinic.ui
    clinic.load(phantom[0])
    ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked = 3, 9, True
    clinic.load(second)
    assert (ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked) == (0, 0, False)


def test_a_volume_that_came_while_another_module_was_open_is_chosen_too(segmented, second):
    clinic = segmented
    clinic.desktop.enter_module(clinic.widget, False)
    other = slicer.util.loadVolume(str(second))
    clinic.desktop.enter_module(clinic.widget)
    assert clinic.ui.volumeSelector.currentNode() is other and not clinic.ui.resultFrame.isVisibleTo(clinic.ui.tabs)
    assert clinic.view.GetBackgroundVolumeID() == other.GetID()


def test_the_view_goes_to_the_largest_section(segmented):
    clinic = segmented
    assert clinic.tab.case.current_slice() == int(np.argmax(clinic.liver().sum(axis=(1, 2))))
    clinic.tab.case.jump(0)
    click(clinic.ui.largestButton)
    assert clinic.tab.case.current_slice() == clinic.findings.largest


def test_the_segment_is_seen_through_everything(segmented):
    display = segmented.tab.case.segmentationNode.GetDisplayNode()
    assert display.GetSliceIntersectionThickness() >= 3 and display.GetOpacity2DFill() <= 0.15
    red, green, blue = display.GetSegmentColor(findSegment(segmented.tab.case.segmentationNode))
    assert min(green, blue) > 2 * red  # parenchyma is grey, the heat map violet to yellow


def test_the_liver_window_is_not_what_the_model_sees(segmented):
    clinic = segmented
    before, display = clinic.liver().copy(), clinic.tab.case.volumeNode.GetDisplayNode()
    click(clinic.ui.windowButton)
    pale, bright, fat, vessel = ((hu - display.GetWindowLevelMin()) / display.GetWindow() for hu in (60, 130, -50, 180))
    assert 0.25 < pale < bright < 0.75, "livers are grey, without contrast and in the portal venous phase"
    assert fat < pale - 0.3 and bright + 0.2 < vessel <= 1, "and what is beside and in them differs"
    clinic.segment()
    assert np.array_equal(clinic.liver(), before)


def test_the_liver_is_shown_in_3d_and_hidden(segmented):
    clinic = segmented
    display = clinic.tab.case.segmentationNode.GetDisplayNode()
    assert clinic.ui.show3DCheckBox.checked
    clinic.wait(lambda: surface(clinic) is not None, 30)
    assert display.GetVisibility3D()
    pixels = clinic.desktop.app.layoutManager().three_d.picture().astype(int)
    liver = (pixels[..., 1] > pixels[..., 0] + 60) & (pixels[..., 2] > pixels[..., 0] + 60)
    assert liver.mean() > 0.02, "the camera was turned to it"
    clinic.ui.show3DCheckBox.checked = False
    assert not display.GetVisibility3D()
    clinic.ui.show3DCheckBox.checked = True
    assert display.GetVisibility3D()


def liver_in_3d(clinic) -> float:
    """The share of the 3D view that shows the liver."""
    pixels = clinic.desktop.app.layoutManager().three_d.picture().astype(int)
    return ((pixels[..., 1] > pixels[..., 0] + 60) & (pixels[..., 2] > pixels[..., 0] + 60)).mean()


def from_the_front(clinic) -> bool:
    camera = clinic.desktop.app.layoutManager().three_d.cameraNode().GetCamera()
    return camera.GetDirectionOfProjection()[1] < -0.99


def test_every_scan_is_seen_from_the_front_and_so_is_a_reloaded_one(segmented, second, tmp_path):
    clinic = segmented
    first = clinic.tab.case.volumeNode
    clinic.wait(lambda: surface(clinic) is not None, 30)
    clinic.load(second)  # two metres up
    clinic.segment()
    clinic.wait(lambda: surface(clinic) is not None, 30)
    assert liver_in_3d(clinic) > 0.02 and from_the_front(clinic)
    clinic.desktop.app.layoutManager().three_d.cameraNode().GetCamera().Azimuth(50)
    click(clinic.ui.noLiverButton)
    clinic.wait(lambda: not clinic.session.busy and not clinic.tab.drawing3D, 30)
    assert not from_the_front(clinic), "a correction leaves the view as the user has turned it"
    pick(clinic.ui.volumeSelector, first)
    clinic.wait(lambda: from_the_front(clinic), 5)
    assert liver_in_3d(clinic) > 0.02

    clinic.reload(tmp_path)
    clinic.wait(lambda: clinic.tab.case is not None and from_the_front(clinic), 30)
    assert liver_in_3d(clinic) > 0.02


def test_a_new_result_has_a_new_surface(segmented):
    clinic = segmented
    clinic.wait(lambda: surface(clinic) is not None, 30)
    before = surface(clinic).GetNumberOfPoints()
    click(clinic.ui.noLiverButton)
    clinic.wait(lambda: not clinic.session.busy)
    clinic.wait(lambda: surface(clinic) is not None and surface(clinic).GetNumberOfPoints() != before, 30)


def test_warnings_of_the_worker_are_shown(segmented):
    assert "The quick worker knows no anatomy" in segmented.ui.noticeLabel.text
    assert segmented.ui.noticeLabel.isVisibleTo(segmented.ui.tabs)


def test_create_new_segmentation_says_nothing_of_a_liver(segmented):
    clinic = segmented
    pick(clinic.ui.segmentationSelector, None)
    assert not clinic.ui.resultLabel.isVisibleTo(clinic.ui.tabs) and not clinic.ui.resultFrame.isVisibleTo(
        clinic.ui.tabs
    )


# Leaving, and another volume


def test_another_module_and_another_volume_are_free_of_what_is_ours(segmented, second):
    clinic = segmented
    first = clinic.tab.case.volumeNode
    cam, box = helper(first, "cam"), helper(first, "box").GetDisplayNode()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cam)
    assert all(view.GetForegroundVolumeID() == cam.GetID() for view in views()) and legend.GetVisibility()
    clinic.desktop.enter_module(clinic.widget, False)
    assert not any(view.GetForegroundVolumeID() for view in views())
    assert not legend.GetVisibility() and not box.GetVisibility()
    clinic.desktop.enter_module(clinic.widget)
    assert all(view.GetForegroundVolumeID() == cam.GetID() for view in views()) and box.GetVisibility()
    before = slicer.app.layoutManager().sliceWidget("Green").mrmlSliceNode().GetFieldOfView()
    clinic.load(second)
    assert not any(view.GetForegroundVolumeID() for view in views())
    assert not legend.GetVisibility() and not box.GetVisibility()
    after = slicer.app.layoutManager().sliceWidget("Green").mrmlSliceNode().GetFieldOfView()
    assert np.allclose(before, after), "the view is fitted to the scan, not to both"


def test_a_run_that_ends_while_another_module_is_open_draws_nothing_there(clinic, phantom):
    clinic.load(phantom[0])
    click(clinic.ui.segmentButton)
    clinic.desktop.enter_module(clinic.widget, False)
    clinic.wait(lambda: not clinic.session.busy)
    assert not any(view.GetForegroundVolumeID() for view in views())
    clinic.desktop.enter_module(clinic.widget)
    assert all(view.GetForegroundVolumeID() for view in views())


def test_a_volume_that_goes_ends_its_run_at_once(clinic, phantom):
    volume = clinic.load(phantom[0])
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    slicer.mrmlScene.RemoveNode(volume)
    assert clinic.session.state in (State.IDLE, State.CANCELLING)
    assert "was removed" in clinic.session.error
    clinic.wait(lambda: not clinic.session.busy, 10)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


# Correct


def test_while_correcting_the_scan_is_seen_without_the_heat_map(segmented):
    clinic = segmented
    cam = helper(clinic.tab.case.volumeNode, "cam").GetID()
    clinic.ui.tabs.currentIndex = CORRECT
    assert not any(view.GetForegroundVolumeID() for view in views()) and clinic.ui.heatMapCheckBox.checked
    assert helper(clinic.tab.case.volumeNode, "box").GetDisplayNode().GetVisibility()
    click(clinic.ui.noLiverButton)
    clinic.wait(lambda: not clinic.session.busy)
    assert not any(view.GetForegroundVolumeID() for view in views())
    clinic.ui.tabs.currentIndex = SEGMENT
    assert all(view.GetForegroundVolumeID() == cam for view in views())


def test_every_grey_button_has_its_reason_in_sight(clinic, phantom):
    ui = clinic.ui
    for tab, label, words in (
        (SEGMENT, ui.startLabel, "Load a CT"),
        (CORRECT, ui.hintLabel, "Load a CT"),
        (TRAIN, ui.trainReasonLabel, "Load a CT"),
        (MODELS, ui.verifyLabel, "came with the extension"),
    ):
        ui.tabs.currentIndex = tab
        assert words in label.text and label.isVisibleTo(ui.tabs.widget(tab))
    clinic.load(phantom[0])
    assert "Segment the liver first" in ui.hintLabel.text
    assert "segment the liver first" in ui.trainReasonLabel.text
    clinic.segment()
    clinic.session.unload()
    clinic.tab.update()
    assert not ui.editBoxButton.enabled and "press Segment Liver" in ui.hintLabel.text
    assert not ui.suggestButton.enabled and "press Segment Liver" in ui.trainReasonLabel.text
    ui.tabs.currentIndex = SEGMENT


# Train


def test_three_lines_say_what_to_do_in_an_empty_set(segmented):
    clinic = segmented
    clinic.ui.tabs.currentIndex = TRAIN
    lines = clinic.ui.stepsLabel.text.splitlines()
    assert [line[:2] for line in lines] == ["1.", "2.", "3."] and clinic.ui.stepsLabel.isVisibleTo(clinic.ui.trainTab)


def test_labels_stay_within_the_scan_and_masks_are_asked_for(segmented):
    clinic, ui = segmented, segmented.ui
    ui.tabs.currentIndex, ui.moreButton.collapsed = TRAIN, False
    assert ui.fromSpinBox.maximum == ui.toSpinBox.maximum == 15
    ui.toSpinBox.value = 9999
    assert ui.toSpinBox.value == 15
    drawn = np.flatnonzero(clinic.liver().any(axis=(1, 2))).tolist()
    ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked = drawn[0], drawn[-2], True
    clinic.desktop.answer = "Cancel"
    click(ui.rangeButton)
    collector = clinic.widget.trainTab.collector
    assert f"slice {drawn[-1]}" in clinic.desktop.dialogs[-1][1] and not collector.busy
    clinic.desktop.answer = "Leave them out"
    click(ui.rangeButton)
    clinic.wait(lambda: not collector.busy, 20)
    known = {entry.slice: entry.label for entry in collector.entries}
    assert drawn[-1] not in known and len(known) == 15
    ui.restCheckBox.checked, ui.moreButton.collapsed = False, True
    collector.set_active(collector.entries, False)


def test_another_structure_has_a_way_to_its_segment(segmented):
    clinic, ui = segmented, segmented.ui
    ui.tabs.currentIndex = TRAIN
    before = clinic.widget.trainTab.collector.set
    clinic.widget.trainTab.collector.create("spleens of the panel", SPLEEN)
    clinic.tab.update()
    assert "Make a segment" in ui.trainReasonLabel.text and ui.makeSegmentButton.isVisibleTo(ui.trainTab)
    click(ui.makeSegmentButton)
    assert ui.tabs.currentIndex == CORRECT
    assert findSegment(clinic.tab.case.segmentationNode, SPLEEN) and findSegment(clinic.tab.case.segmentationNode)
    ui.tabs.currentIndex = TRAIN
    clinic.tab.update()
    assert not ui.makeSegmentButton.isVisibleTo(ui.trainTab) and ui.useSliceButton.enabled
    if before is not None:
        clinic.widget.trainTab.collector.open(before.folder)


# The panel itself


def test_what_is_needed_is_reached_without_scrolling(segmented):
    clinic, ui = segmented, segmented.ui
    clinic.desktop.window.resize(1280, 780)
    bar = get(ui.tabs.tabBar(), "height")
    for tab, widgets in (
        (SEGMENT, (ui.segmentButton, ui.resultLabel)),
        (CORRECT, (ui.editBoxButton, ui.liverButton, ui.noLiverButton)),
        (TRAIN, (ui.useSliceButton, ui.suggestButton, ui.trainButton)),
        (MODELS, (ui.compareModelButton,)),
    ):
        ui.tabs.currentIndex = tab
        clinic.desktop.app.processEvents()
        for widget in widgets:
            assert bottom(clinic, widget) <= TAB_HEIGHT + bar, widget.name


def test_at_its_smallest_the_panel_can_be_read(segmented):
    """Slicer's dock gives a module no more width than it cannot do without."""
    tabs = segmented.ui.tabs
    buttons = (segmented.ui.windowButton, segmented.ui.largestButton, segmented.ui.reviewButton)
    needed = max(tabs.tabBar().sizeHint().width(), sum(each.sizeHint().width() for each in buttons))
    assert needed <= tabs.parentWidget().minimumSizeHint().width() <= 400


def test_each_tab_has_its_own_height(segmented):
    clinic, tabs = segmented, segmented.ui.tabs
    clinic.desktop.window.resize(1280, 200)  # lower than the tabs
    heights = []
    for tab in (SEGMENT, CORRECT, TRAIN, MODELS):
        tabs.currentIndex = tab
        clinic.wait(lambda: clinic.widget.tabHeights.fit() or get(tabs, "height") <= tabs.maximumHeight, 5)
        for _ in range(5):
            clinic.desktop.app.processEvents()
        page = tabs.currentWidget()
        assert get(page, "height") >= page.heightForWidth(get(page, "width"))
        heights.append(get(tabs, "height"))
    assert heights[MODELS] < 0.8 * max(heights), "the Segment Editor makes no other tab taller"
    tabs.currentIndex = CORRECT
    clinic.desktop.app.processEvents()
    assert get(clinic.ui.segmentEditor, "height") >= clinic.ui.segmentEditor.minimumSizeHint().height()
    clinic.desktop.window.resize(1280, 1400)
    tabs.currentIndex = TRAIN
    clinic.wait(lambda: tabs.maximumHeight > 1300, 5)  # the list of slices may take the room that there is
    scroll = clinic.widget.parent.parentWidget().parentWidget().verticalScrollBar()
    clinic.wait(lambda: get(scroll, "maximum") == 0, 5)


def test_no_text_is_cut_and_none_lies_over_another_widget(segmented):
    clinic, ui = segmented, segmented.ui
    clinic.desktop.window.resize(1280, 780)
    long = "a sentence that is longer than the panel is wide, and goes on for some lines more " * 3
    pictures = (ui.beforeLabel, ui.afterLabel)
    for label in pictures:
        label.setMinimumHeight(180)
    for tab in (SEGMENT, CORRECT, TRAIN, MODELS):
        ui.tabs.currentIndex = tab
        page = ui.tabs.widget(tab)
        hidden = [each for each in (ui.outcomeFrame, ui.outcomeLabel, ui.trainStatusLabel) if each.isHidden()]
        labels = [label for label in page.findChildren(QtWidgets.QLabel) if get(label, "wordWrap")]
        before = [get(label, "text") for label in labels]
        for label in labels:
            label.setText(long)
        for each in hidden:
            each.show()
        for turn in range(20):  # nested layouts settle one after another, and the desk measures at each update
            if turn % 5 == 0:
                clinic.widget.tabHeights.fit()
            clinic.desktop.app.processEvents()
            QtCore.QThread.msleep(10)
        for label in page.findChildren(QtWidgets.QLabel):
            if label.isVisibleTo(page) and get(label, "text"):
                assert get(label, "width") >= 20, label.name
        for label in labels:
            if label.isVisibleTo(page):
                assert get(label, "height") >= label.heightForWidth(get(label, "width")), label.name
        for parent in (page, ui.resultFrame, ui.outcomeFrame):
            children = parent.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly)
            for one, other in itertools.combinations([each for each in children if each.isVisibleTo(page)], 2):
                assert not get(one, "geometry").intersects(get(other, "geometry")), (one.name, other.name)
        for label, text in zip(labels, before, strict=True):
            label.setText(text)
        for each in hidden:
            each.hide()
    for label in pictures:
        label.setMinimumHeight(0)
    clinic.tab.update()


def test_the_chart_stays_where_it_is_from_slice_to_slice(segmented):
    ui = segmented.ui
    QtWidgets.QApplication.processEvents()
    places = set()
    for text in ("", "Slice 3: no liver", "Slice 44: liver probability 100 %, the model's own confidence 96 %"):
        ui.sliceLabel.setText(text)
        QtWidgets.QApplication.processEvents()
        places.add(ui.plotFrame.y)
    assert len(places) == 1


def test_no_text_widens_the_panel(segmented):
    ui = segmented.ui
    width = ui.tabs.minimumSizeHint().width()
    assert width <= 380
    for label in ui.tabs.findChildren(QtWidgets.QLabel):
        if label.isVisibleTo(ui.tabs) and "layout" not in label.name.lower() and "Form" not in label.name:
            before = get(label, "text")
            label.setText("a long sentence without an end " * 20)
            assert ui.tabs.minimumSizeHint().width() == width, label.name
            label.setText(before)


def test_the_panel_speaks_plain_words(segmented):
    ui = segmented.ui
    for tab in (SEGMENT, CORRECT, TRAIN, MODELS):
        ui.tabs.currentIndex = tab
        for text in seen(ui.tabs.widget(tab)):
            assert not JARGON.search(text), text
    assert "liver probability" in ui.sliceLabel.text and "the model's own confidence" in ui.sliceLabel.text
    assert ui.heatMapCheckBox.text == "Where the model looked"


def test_a_click_through_every_tab_leaves_the_log_empty(clinic, phantom, second, tmp_path):
    """Every control but those that train; that nothing is logged is asked at the end of each test."""
    ui, desktop = clinic.ui, clinic.desktop
    desktop.enter_module(clinic.widget, False)
    desktop.enter_module(clinic.widget)  # without a volume
    first = clinic.load(phantom[0])
    desktop.enter_module(clinic.widget, False)
    desktop.enter_module(clinic.widget)  # with one, and no segmentation
    clinic.segment()
    for check in (ui.heatMapCheckBox, ui.boxCheckBox, ui.show3DCheckBox, ui.legendCheckBox):
        check.checked = not check.checked
        check.checked = not check.checked
    ui.opacitySlider.value, ui.thresholdSlider.value = 0.5, 0.2
    for button in (ui.windowButton, ui.largestButton, ui.reviewButton):
        click(button)
    clinic.tab.plot.click(3)

    ui.tabs.currentIndex = CORRECT
    click(ui.editBoxButton)
    clinic.tab.case.jump(clinic.findings.largest)
    helper(first, "box").InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    clinic.wait(lambda: not clinic.session.busy)
    for button in (ui.noLiverButton, ui.liverButton):
        click(button)
        clinic.wait(lambda: not clinic.session.busy)
    clinic.paint(2)
    ui.segmentEditor.undo()
    ui.segmentEditor.redo()
    clinic.wait(lambda: not clinic.tab.drawing3D, 30)

    ui.tabs.currentIndex, ui.moreButton.collapsed, ui.trainingButton.collapsed = TRAIN, False, False
    collector = clinic.widget.trainTab.collector
    for button in (ui.useSliceButton, ui.useEditedButton, ui.emptySliceButton, ui.fromHereButton, ui.toHereButton,
                   ui.rangeButton):  # fmt: skip
        click(button)
        clinic.wait(lambda: not collector.busy, 20)
    click(ui.suggestButton)
    clinic.wait(lambda: clinic.session.suggested is not None, 20)
    click(ui.newSetButton)
    ui.setNameEdit.text = "clicked through"
    click(ui.createSetButton)
    click(ui.emptySliceButton)
    clinic.wait(lambda: not collector.busy, 20)
    desktop.file = str(tmp_path / "exported.zip")
    for button in (ui.exportSetButton, ui.openSetButton):
        click(button)
        clinic.wait(lambda: not collector.busy, 20)
    ui.moreButton.collapsed = ui.trainingButton.collapsed = True

    ui.tabs.currentIndex, desktop.file, desktop.typed = MODELS, str(tmp_path / "model.zip"), "clicked"
    for button in (ui.verifyModelButton, ui.exportModelButton, ui.importModelButton):
        click(button)
    click(ui.compareModelButton)
    clinic.wait(lambda: not clinic.session.busy and "Dice" in ui.compareLabel.text, 30)
    ui.modelsTable.selectRow(1)
    click(ui.deleteModelButton)

    ui.tabs.currentIndex = SEGMENT
    clinic.load(second)
    clinic.segment()
    pick(ui.volumeSelector, first)
    slicer.mrmlScene.RemoveNode(first)
    clinic.wait(lambda: clinic.tab.case is None, 5)
    slicer.mrmlScene.Clear(False)
    assert not clinic.session.error
