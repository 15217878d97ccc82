"""Liver probability and area along z as a Slicer plot: a table, its series, a chart. The x axis is the slice k."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import vtk
from numpy.typing import ArrayLike
from vtk.util.numpy_support import numpy_to_vtk

from SAMMixLib.module.scene.hygiene import adopt, create, helper
from SAMMixLib.module.scene.observe import Watch

SLICE, P_LIVER, AREA, RELATIVE, REVIEW = "slice", "liver probability", "area (cm2)", "area / largest", "to review"
OUT_OF_SIGHT = -1.0  # below the axis, where the chart clips the points of slices that need no review
BLUE, ORANGE, RED = (0.12, 0.47, 0.71), (0.87, 0.51, 0.40), (0.84, 0.15, 0.16)


def showChart(volumeNode, p_liver: ArrayLike, area_mm2: ArrayLike, review: Sequence[int] = ()):
    """Make the volume's chart node, or bring it up to date; None for a single slice, which is no curve.

    Args:
        p_liver: one value for each slice of the axial stack.
        area_mm2: likewise. It is drawn as a share of the largest, since a Slicer chart has one y axis for all.
        review: the slices k of low confidence, marked by points on p(liver).
    """
    p, area = np.asarray(p_liver, np.float32), np.asarray(area_mm2, np.float32) / 100
    if len(p) < 2:  # of one point VTK draws no curve, and says so at each attempt
        return None
    marked = np.full_like(p, OUT_OF_SIGHT)
    marked[list(review)] = p[list(review)]
    relative = area / area.max() if area.any() else area
    table = _table(volumeNode, {SLICE: np.arange(len(area), dtype=np.int32), P_LIVER: p, AREA: area,
                                RELATIVE: relative, REVIEW: marked})  # fmt: skip

    chart = helper(volumeNode, "chart")
    if chart is None:
        chart = create("vtkMRMLPlotChartNode", f"{volumeNode.GetName()} liver along z")
        chart.SetTitle(f"Liver along z in {volumeNode.GetName()}")
        chart.SetTitleVisibility(False)
        chart.SetLegendVisibility(False)  # it would cover the curves; the panel says what they are
        chart.SetXAxisTitle("slice")
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0.0, 1.05)
        chart.AddAndObservePlotSeriesNodeID(_line(volumeNode, P_LIVER, table, BLUE).GetID())
        chart.AddAndObservePlotSeriesNodeID(_line(volumeNode, RELATIVE, table, ORANGE).GetID())
        chart.AddAndObservePlotSeriesNodeID(_points(volumeNode, table).GetID())
        adopt(chart, volumeNode, "chart")
    if (relative_series := helper(volumeNode, RELATIVE)) is not None:
        relative_series.SetName(f"area / {area.max(initial=0):.0f} cm2")
    return chart


class ChartClicks:
    """Calls ``callback(k)`` when the user clicks at slice k of a plot view's chart; a drag is no click.

    A plot view's own signal ``dataSelected`` tells of rectangles only, and of what was selected before.
    """

    def __init__(self, plotView, callback: Callable[[int], None]):
        self._chart, self._callback = plotView.chart(), callback
        self._pressed: tuple[int, int] | None = None
        interactor = plotView.scene().GetRenderer().GetRenderWindow().GetInteractor()
        self._watches = [
            Watch(interactor, (vtk.vtkCommand.LeftButtonPressEvent,), self._press),
            Watch(interactor, (vtk.vtkCommand.LeftButtonReleaseEvent,), self._release),
        ]

    def _press(self, interactor) -> None:
        self._pressed = interactor.GetEventPosition()

    def _release(self, interactor) -> None:
        at = interactor.GetEventPosition()
        if at == self._pressed and (k := sliceAt(self._chart, *at)) is not None:
            self._callback(k)


def sliceAt(chart, x: float, y: float) -> int | None:
    """The slice k at a pixel of a ``vtkChartXY``; None where it shows no curve, or outside its axes."""
    bottom, left = chart.GetAxis(vtk.vtkAxis.BOTTOM), chart.GetAxis(vtk.vtkAxis.LEFT)
    (first, low), (last, high) = bottom.GetPoint1(), (bottom.GetPoint2()[0], left.GetPoint2()[1])
    if not chart.GetNumberOfPlots() or not (first <= x <= last and low <= y <= high and first < last):
        return None
    return round(bottom.GetMinimum() + (x - first) / (last - first) * (bottom.GetMaximum() - bottom.GetMinimum()))


def _table(volumeNode, columns: dict[str, np.ndarray]):
    """The volume's table node; its columns are exchanged at once, so that no plot sees a table without them."""
    node = helper(volumeNode, "table")
    if node is None:
        node = create("vtkMRMLTableNode", f"{volumeNode.GetName()} along z")
        adopt(node, volumeNode, "table")
    table = vtk.vtkTable()
    for name, values in columns.items():
        column = numpy_to_vtk(values, deep=True)
        column.SetName(name)
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    return node


def _line(volumeNode, column: str, table, color: tuple[float, float, float]):
    node = create("vtkMRMLPlotSeriesNode", column)
    node.SetXColumnName(SLICE)
    node.SetYColumnName(column)
    node.SetPlotType(node.PlotTypeScatter)
    node.SetMarkerStyle(node.MarkerStyleNone)
    node.SetColor(color)
    node.SetAndObserveTableNodeID(table.GetID())
    adopt(node, volumeNode, column)
    return node


def _points(volumeNode, table):
    node = _line(volumeNode, REVIEW, table, RED)
    node.SetLineStyle(node.LineStyleNone)
    node.SetMarkerStyle(node.MarkerStyleCircle)
    node.SetMarkerSize(9)
    return node
