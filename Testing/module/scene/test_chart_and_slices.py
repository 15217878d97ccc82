"""The curves along z and the way from their points, and from the review list, to the slice in the red view."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk

from SAMMixLib.module.scene.chart import P_LIVER, ChartClicks, showChart
from SAMMixLib.module.scene.navigate import alignView, currentSlice, jumpToSlice, nextToReview, watchSlice

RED = "vtkMRMLSliceNodeRed"
TILTED = np.array([[-1, 0, 0, 30], [0, -0.8, 0.9, -80], [0, 0.6, 1.2, 600], [0, 0, 0, 1.0]])


def test_the_chart_is_made_once_and_follows_its_data(scene, makeVolume):
    volume = makeVolume()
    chart = showChart(volume, [0, 0.5, 1, 1, 0.9, 0], [0, 100, 400, 800, 200, 0], review=[4, 1])
    assert showChart(volume, [0, 0, 1, 1, 1, 0], [0, 0, 500, 1000, 250, 0], review=[2]) is chart
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 3
    p, area, review = (chart.GetNthPlotSeriesNode(n) for n in range(3))
    table = slicer.util.arrayFromTableColumn
    assert np.allclose(table(p.GetTableNode(), p.GetYColumnName()), [0, 0, 1, 1, 1, 0])
    assert np.allclose(table(area.GetTableNode(), area.GetYColumnName()), [0, 0, 0.5, 1, 0.25, 0])
    assert np.allclose(table(area.GetTableNode(), "area (cm2)"), [0, 0, 5, 10, 2.5, 0])
    assert {series.GetXColumnName() for series in (p, area, review)} == {"slice"}
    assert area.GetName() == "area / 10 cm2"


def test_a_volume_without_liver_or_doubt_has_a_chart_too(makeVolume):
    chart = showChart(makeVolume(), np.zeros(6), np.zeros(6))
    assert chart.GetNthPlotSeriesNode(1).GetName() == "area / 0 cm2"


def test_a_click_between_the_axes_means_a_slice_and_a_drag_does_not():
    view, chart, interactor = vtk.vtkContextView(), vtk.vtkChartXY(), vtk.vtkGenericRenderWindowInteractor()
    interactor.SetInteractorStyle(None)
    view.SetInteractor(interactor)
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetSize(400, 170)
    view.GetScene().AddItem(chart)
    seen = []
    plot = SimpleNamespace(chart=lambda: chart, scene=view.GetScene)
    clicks = ChartClicks(plot, seen.append)
    gc.collect()
    table = vtk.vtkTable()
    for name in ("slice", "p(liver)"):
        column = vtk.vtkFloatArray()
        column.SetName(name)
        for k in range(11):
            column.InsertNextValue(k)
        table.AddColumn(column)

    def pointer(x, y, *events):
        interactor.SetEventInformation(round(x), round(y))
        for event in events:
            interactor.InvokeEvent(event)

    both = ("LeftButtonPressEvent", "LeftButtonReleaseEvent")
    view.GetRenderWindow().Render()
    pointer(200, 80, *both)  # no curve yet
    chart.AddPlot(vtk.vtkChart.LINE).SetInputData(table, "slice", "p(liver)")
    view.GetRenderWindow().Render()
    (first, low), (last, _) = (
        chart.GetAxis(vtk.vtkAxis.BOTTOM).GetPoint1(),
        chart.GetAxis(vtk.vtkAxis.BOTTOM).GetPoint2(),
    )
    for k in (0, 3, 10):
        pointer(first + k / 10 * (last - first), low + 20, *both)
    pointer(first + 50, low - 10, *both)  # on the axis' numbers
    pointer(first + 50, low + 20, both[0])
    pointer(first + 90, low + 20, both[1])
    assert seen == [0, 3, 10]
    del clicks


def test_two_volumes_have_a_chart_each(makeVolume):
    one, two = makeVolume(), makeVolume(name="second")
    first, second = showChart(one, np.zeros(6), np.zeros(6)), showChart(two, np.ones(6), np.ones(6))
    assert first is not second
    assert slicer.util.arrayFromTableColumn(first.GetNthPlotSeriesNode(0).GetTableNode(), P_LIVER).max() == 0


def test_slices_are_followed_and_off_the_stack_there_is_none(scene, makeVolume):
    volume = makeVolume()  # slices at 0, 2.5 .. 12.5 mm
    red = scene.GetNodeByID(RED)
    seen = []
    watch = watchSlice(volume, seen.append)
    for offset in (2.6, 3.7, 3.8, 13.7, 13.8, -1.2, -1.3, 5.0):
        red.SetSliceOffset(offset)
    assert seen == [1, 2, 5, None, 0, None, 2]
    watch.stop()
    red.SetSliceOffset(0)
    assert len(seen) == 7
    red.SetXYZOrigin(33.0, -12.0, 0.0)  # a pan does not change the slice
    assert currentSlice(volume) == 0


@pytest.mark.parametrize("step", [1.2, -1.2])
def test_an_oblique_stack_is_shown_slice_by_slice_once_the_view_is_aligned(scene, makeVolume, step):
    matrix = TILTED.copy()
    matrix[:3, 2] *= np.sign(step)
    volume = makeVolume((9, 20, 20), matrix)
    alignView(volume)
    normal = slicer.util.arrayFromVTKMatrix(scene.GetNodeByID(RED).GetSliceToRAS())[:3, 2]
    assert abs(normal @ matrix[:3, 2]) == pytest.approx(np.linalg.norm(matrix[:3, 2]))
    for k in (0, 8, 4):
        jumpToSlice(volume, k)
        assert currentSlice(volume) == k


def test_a_single_slice_is_always_that_slice(makeVolume):
    volume = makeVolume((1, 8, 10))
    jumpToSlice(volume, 0)
    assert currentSlice(volume) == 0


def test_the_worst_slice_is_reviewed_first_then_the_next():
    review = [7, 3, 5]
    assert [nextToReview(review, k) for k in (None, 0, 7, 3, 5)] == [7, 7, 3, 5, 7]
    assert nextToReview([], 3) is None
