"""p(liver) and liver area along z as Slicer plots: a table, its series, a chart. The x axis is the slice number k."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import slicer
import vtk

from SAMMixLib.module.scene.hygiene import adopt, helper
from SAMMixLib.module.scene.observe import Watch

SLICE, P_LIVER, AREA, RELATIVE = "slice", "p(liver)", "area (cm2)", "area / largest"


def showChart(volumeNode, p_liver: Sequence[float], area_mm2: Sequence[float], review: Sequence[int] = ()):
    """Make the volume's chart node, or bring it up to date.

    Args:
        p_liver: one value for each slice of the axial stack.
        area_mm2: likewise. It is drawn as a share of the largest, since a Slicer chart has one y axis for all.
        review: the slices k of low confidence, marked by points on p(liver).
    """
    p_liver, area = np.asarray(p_liver, np.float32), np.asarray(area_mm2, np.float32) / 100
    k = np.arange(len(p_liver), dtype=np.int32)
    relative = area / area.max() if area.any() else area
    marked = np.array(sorted(review), np.int32)
    whole = _table(volumeNode, "table", {SLICE: k, P_LIVER: p_liver, AREA: area, RELATIVE: relative})
    points = _table(volumeNode, "review table", {SLICE: marked, P_LIVER: p_liver[marked]})

    chart = helper(volumeNode, "chart")
    if chart is None:
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{volumeNode.GetName()} liver along z")
        chart.SetTitle(f"Liver along z in {volumeNode.GetName()}")
        chart.SetTitleVisibility(False)
        chart.SetLegendVisibility(False)  # it would cover the curves; the panel says what they are
        chart.SetXAxisTitle("slice")
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0.0, 1.05)
        chart.AddAndObservePlotSeriesNodeID(_line(volumeNode, P_LIVER, whole, P_LIVER, (0.12, 0.47, 0.71)).GetID())
        chart.AddAndObservePlotSeriesNodeID(_line(volumeNode, RELATIVE, whole, RELATIVE, (0.87, 0.51, 0.40)).GetID())
        chart.AddAndObservePlotSeriesNodeID(_points(volumeNode, points).GetID())
        adopt(chart, volumeNode, "chart")
    helper(volumeNode, RELATIVE).SetName(f"area / {area.max(initial=0):.0f} cm2")
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


def _table(volumeNode, role: str, columns: dict[str, np.ndarray]):
    node = helper(volumeNode, role)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{volumeNode.GetName()} {role}")
        adopt(node, volumeNode, role)
    slicer.util.updateTableFromArray(node, list(columns.values()), list(columns))
    return node


def _line(volumeNode, role: str, table, column: str, color: tuple[float, float, float]):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", column)
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetXColumnName(SLICE)
    node.SetYColumnName(column)
    node.SetPlotType(node.PlotTypeScatter)
    node.SetMarkerStyle(node.MarkerStyleNone)
    node.SetColor(color)
    adopt(node, volumeNode, role)
    return node


def _points(volumeNode, table):
    node = _line(volumeNode, "review", table, P_LIVER, (0.84, 0.15, 0.16))
    node.SetName("to review")
    node.SetLineStyle(node.LineStyleNone)
    node.SetMarkerStyle(node.MarkerStyleCircle)
    node.SetMarkerSize(9)
    return node
