"""p(liver) and liver area along z as Slicer plots: a table, its series, a chart. The x axis is the slice number k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer

from SAMMixLib.scene.hygiene import adopt, helper

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


def sliceOfPoint(seriesNodeId: str, row: int) -> int | None:
    """The slice k that a clicked point means: its row in the table of its series (``dataSelected`` gives both).

    None for the series of another chart.
    """
    series = slicer.mrmlScene.GetNodeByID(seriesNodeId)
    table = series.GetTableNode() if series else None
    column = table.GetTable().GetColumnByName(SLICE) if table else None
    return int(column.GetValue(row)) if column and 0 <= row < column.GetNumberOfTuples() else None


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
