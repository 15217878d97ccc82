"""Stand-ins for the CTK and qMRML widgets of the module, on the real scene."""

from __future__ import annotations

import gc
import types

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal
from shiboken6 import isValid

from slicerhost.pythonqt import get, standin


def stored(kind, name: str, default, then: str | None = None) -> Property:
    """A Qt property that is only kept, with a method to call after it was written."""

    def read(self):
        return self.__dict__.get("_" + name, default() if callable(default) else default)

    def write(self, value):
        self.__dict__["_" + name] = value
        if then:
            getattr(self, then)()

    return Property(kind, read, write)


def compact(layout) -> None:
    layout.setContentsMargins(0, 0, 0, 0)


@standin("contentsCollapsed(bool)")
class ctkCollapsibleButton(QtWidgets.QWidget):
    contentsCollapsed = Signal(bool)
    HEADER = 26

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setContentsMargins(4, self.HEADER + 4, 4, 4)

    text = stored(str, "text", "", "update")

    def _collapse(self, value):
        self.__dict__["_collapsed"] = bool(value)
        self._hide()
        self.contentsCollapsed.emit(bool(value))

    collapsed = Property(bool, lambda self: self.__dict__.get("_collapsed", False), _collapse)

    def _hide(self):
        shut = self.__dict__.get("_collapsed", False)
        for child in self.findChildren(QtWidgets.QWidget, options=Qt.FindDirectChildrenOnly):
            child.setVisible(not shut and not child.property("keptHidden"))
        self.setMaximumHeight(self.HEADER if shut else 16777215)
        self.update()

    def showEvent(self, event):
        super().showEvent(event)
        if self.__dict__.get("_collapsed"):
            self._hide()

    def mousePressEvent(self, event):
        if event.position().y() < self.HEADER:
            self._collapse(not self.__dict__.get("_collapsed", False))

    def paintEvent(self, event):
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionButton()
        option.rect = QtCore.QRect(0, 0, get(self, "width"), self.HEADER)
        option.state = QtWidgets.QStyle.State_Enabled | QtWidgets.QStyle.State_Raised
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        painter.drawText(9, 18, "\u25b8" if self.__dict__.get("_collapsed") else "\u25be")
        painter.drawText(24, 18, get(self, "text"))


@standin("valueChanged(double)")
class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        compact(layout)
        slider, box = QtWidgets.QSlider(Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        self.__dict__.update(_slider=slider, _box=box)
        layout.addWidget(slider, 1)
        layout.addWidget(box)
        slider.setRange(0, 1000)
        slider.sliderMoved.connect(lambda at: box.setValue(self._low + at / 1000 * self._span))
        box.valueChanged.connect(self._changed)

    _low = property(lambda self: get(self._box, "minimum"))
    _span = property(lambda self: (get(self._box, "maximum") - self._low) or 1)

    def _changed(self, value):
        self._slider.setValue(round(1000 * (value - self._low) / self._span))
        self.valueChanged.emit(value)

    value = Property(float, lambda self: get(self._box, "value"), lambda self, value: self._box.setValue(value))
    minimum = Property(float, lambda self: self._low, lambda self, value: self._box.setMinimum(value))
    maximum = Property(float, lambda self: get(self._box, "maximum"), lambda self, value: self._box.setMaximum(value))
    singleStep = Property(float, lambda self: get(self._box, "singleStep"),
                          lambda self, value: self._box.setSingleStep(value))  # fmt: skip
    decimals = Property(int, lambda self: get(self._box, "decimals"), lambda self, value: self._box.setDecimals(value))
    suffix = Property(str, lambda self: get(self._box, "suffix"), lambda self, value: self._box.setSuffix(value))


@standin("mrmlSceneChanged(vtkMRMLScene*)")
class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)
    isEntered = stored(bool, "isEntered", True)

    def setMRMLScene(self, scene):
        self.__dict__["_scene"] = scene
        self.mrmlSceneChanged.emit(scene)


@standin("currentNodeChanged(vtkMRMLNode*)", "currentNodeIDChanged(QString)", "nodeAddedByUser(vtkMRMLNode*)")
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """As the real one: without ``noneEnabled`` the first node is taken when the scene gets its first, but a None that
    was written (by a parameter node) stays."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeTypes = stored("QStringList", "nodeTypes", list)
    showHidden = stored(bool, "showHidden", False)
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True)
    noneEnabled = stored(bool, "noneEnabled", False)
    noneDisplay = stored(str, "noneDisplay", "None", "_refresh")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    renameEnabled = stored(bool, "renameEnabled", False)
    editEnabled = stored(bool, "editEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        compact(layout)
        combo = QtWidgets.QComboBox()
        self.__dict__.update(_combo=combo, _id="", _scene=None, _observations=[], _written=False)
        layout.addWidget(combo)
        combo.activated.connect(self._picked)
        self.setEnabled(False)

    def setMRMLScene(self, scene):
        for tag in self._observations:
            self._scene.RemoveObserver(tag)
        self.__dict__["_scene"] = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndBatchProcessEvent)
        self.__dict__["_observations"] = [scene.AddObserver(event, lambda *_: self._refresh()) for event in events]
        self.setEnabled(True)
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def nodes(self) -> list:
        found = []
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            fits = any(node.IsA(kind) if get(self, "showChildNodeTypes") else node.GetClassName() == kind
                       for kind in get(self, "nodeTypes"))  # fmt: skip
            if fits and (get(self, "showHidden") or not node.GetHideFromEditors()):
                found.append(node)
        return found

    def _refresh(self):
        if not isValid(self) or self._scene is None or self._scene.IsBatchProcessing():
            return  # the panel that it was on may be gone, but the scene still calls
        nodes = self.nodes()
        self._combo.blockSignals(True)
        self._combo.clear()
        if get(self, "noneEnabled"):
            self._combo.addItem(get(self, "noneDisplay"), "")
        for node in nodes:
            self._combo.addItem(node.GetName(), node.GetID())
        if get(self, "addEnabled"):
            for kind in get(self, "nodeTypes"):
                self._combo.addItem(f"Create new {self._scene.GetTagByClassName(kind)}", "+" + kind)
        self._combo.blockSignals(False)
        known = [node.GetID() for node in nodes]
        if self._id and self._id not in known:
            self._select("")
        elif not self._id and known and not get(self, "noneEnabled") and not self._written:
            self._select(known[0])
        self._show()

    def _show(self):
        self._combo.setCurrentIndex(self._combo.findData(self._id))

    def _picked(self, index):
        chosen = self._combo.itemData(index) or ""
        self._select(self.addNode(chosen[1:]).GetID() if chosen.startswith("+") else chosen)

    def addNode(self, kind=None):
        kind = kind or get(self, "nodeTypes")[0]
        base = get(self, "baseName") or self._scene.GetTagByClassName(kind)
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(base))
        if get(self, "selectNodeUponCreation"):
            self._select(node.GetID())
        self.nodeAddedByUser.emit(node)
        return node

    def _select(self, node_id: str):
        if node_id != self._id:
            self.__dict__["_id"] = node_id
            self._show()
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id)

    def setCurrentNodeID(self, node_id):
        self.__dict__["_written"] = True
        self._refresh()
        self._select(node_id or "")

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node else "")

    def currentNode(self):
        return self._scene.GetNodeByID(self._id) if self._scene and self._id else None

    currentNodeID = Property(str, lambda self: self._id, setCurrentNodeID)


@standin("currentSegmentIDChanged(QString)")
class qMRMLSegmentEditorWidget(QtWidgets.QWidget):
    """Undo, redo and the parameter node are Slicer's own logic; effects can be chosen, and do nothing.

    As in the real one, its selector of segmentations knows no node that came during a batch (a scene is being read)
    until the batch has ended, and what the selector shows then is what the parameter node gets.
    """

    currentSegmentIDChanged = Signal(str)
    maximumNumberOfUndoStates = Property(
        int,
        lambda self: self.logic.GetMaximumNumberOfUndoStates(),
        lambda self, count: self.logic.SetMaximumNumberOfUndoStates(count),
    )
    segmentationNodeSelectorVisible = stored(bool, "segmentationNodeSelectorVisible", True)
    sourceVolumeNodeSelectorVisible = stored(bool, "sourceVolumeNodeSelectorVisible", True)
    switchToSegmentationsButtonVisible = stored(bool, "switchToSegmentationsButtonVisible", True)
    autoShowSourceVolumeNode = stored(bool, "autoShowSourceVolumeNode", True)
    jumpToSelectedSegmentEnabled = stored(bool, "jumpToSelectedSegmentEnabled", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        logic = slicer.vtkSlicerSegmentEditorLogic()
        table = QtWidgets.QTableWidget(0, 2)
        self.__dict__.update(logic=logic, _table=table, _observed=(None, 0), _undo_saves=0, _effect=None)
        logic.SetSegmentationHistory(slicer.vtkSegmentationHistory())
        table.setHorizontalHeaderLabels(["", "Segment"])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.setColumnWidth(0, 26)
        table.setMinimumHeight(80)
        effects = QtWidgets.QGridLayout()
        for index, name in enumerate(("None", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds",
                                      "Islands", "Smoothing", "Scissors", "Logical operators")):  # fmt: skip
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.clicked.connect(lambda _=False, name=name: self.setActiveEffectByName(name))
            button.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
            effects.addWidget(button, index // 3, index % 3)
        undo = QtWidgets.QHBoxLayout()
        for name, slot in (("Undo", self.undo), ("Redo", self.redo)):
            button = QtWidgets.QPushButton(name)
            button.clicked.connect(slot)
            undo.addWidget(button)
        layout = QtWidgets.QVBoxLayout(self)
        compact(layout)
        layout.addWidget(table)
        layout.addLayout(effects)
        layout.addLayout(undo)

    def setMRMLScene(self, scene):
        self.logic.SetMRMLScene(scene)
        scene.AddObserver(scene.EndBatchProcessEvent, self._batchEnded)

    def _batchEnded(self, scene, event):
        if isValid(self) and self.logic.GetSegmentEditorNode():
            self.setSegmentationNode(self.segmentationNode())
            self._follow()

    def setMRMLSegmentEditorNode(self, node):
        if node is not self.logic.GetSegmentEditorNode():
            self.logic.SetSegmentEditorNode(node)
            if node:
                node.AddObserver("ModifiedEvent", lambda *_: self._follow())
            self._follow()

    def mrmlSegmentEditorNode(self):
        return self.logic.GetSegmentEditorNode()

    def setSegmentationNode(self, node):
        if self.logic.GetSegmentationNode() is not node:  # a scene that was read may have named it already
            self.logic.SetSegmentationNode(node)

    def segmentationNode(self):
        return self._observed[0]

    def segmentationNodeID(self):
        return self.segmentationNode().GetID() if self.segmentationNode() else ""

    def _follow(self):
        """Look at the segmentation that the parameter node names now."""
        node, (observed, tag) = self.logic.GetSegmentationNode(), self._observed
        if node is not None and slicer.mrmlScene.IsBatchProcessing():
            node = None
        if node is not observed:
            if observed:
                observed.RemoveObserver(tag)
            tag = node.AddObserver("AnyEvent", lambda *_: self._list()) if node else 0
            self.__dict__["_observed"] = (node, tag)
            self._list()

    def setSourceVolumeNode(self, node):
        if node and not (self.logic.GetSegmentEditorNode() and self.logic.GetSegmentationNode()):
            QtCore.qCritical("setSourceVolumeNode: need to set segment editor and segmentation nodes first")
            return
        if self.logic.GetSegmentEditorNode():
            self.logic.SetSourceVolumeNode(node)

    def setCurrentSegmentID(self, segment_id):
        self.logic.SetCurrentSegmentID(segment_id)

    def saveStateForUndo(self):
        self.__dict__["_undo_saves"] += 1
        self.logic.SaveStateForUndo()

    def undo(self):
        self.logic.Undo()

    def redo(self):
        self.logic.Redo()

    def setActiveEffect(self, effect):
        self.__dict__["_effect"] = effect

    def setActiveEffectByName(self, name):
        self.setActiveEffect(None if name == "None" else types.SimpleNamespace(name=name))

    def activeEffect(self):
        return self._effect

    def updateWidgetFromMRML(self):
        self._follow()
        self._list()

    def setupViewObservations(self):
        pass

    removeViewObservations = installKeyboardShortcuts = uninstallKeyboardShortcuts = setupViewObservations

    def _list(self):
        if not isValid(self):
            return  # the panel that it was on may be gone, but the scene still calls
        node = self.segmentationNode()
        segmentation = node.GetSegmentation() if node else None
        ids = segmentation.GetSegmentIDs() if segmentation else ()
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            segment = segmentation.GetSegment(segment_id)
            color = QtWidgets.QTableWidgetItem()
            color.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._table.setItem(row, 0, color)
            self._table.setItem(row, 1, QtWidgets.QTableWidgetItem(segment.GetName()))


@standin()
class qMRMLPlotView(QtWidgets.QLabel):
    """Draws the chart of a plot view node with vtkChartXY, as the real one does: at every event of chart and series.

    Python holds the view alone. Interactor, scene and chart are VTK's, as they are in the application.
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        view, chart, interactor = vtk.vtkContextView(), vtk.vtkChartXY(), vtk.vtkGenericRenderWindowInteractor()
        view.GetRenderWindow().SetOffScreenRendering(1)
        view.GetRenderer().SetBackground(1, 1, 1)
        view.GetScene().AddItem(chart)
        interactor.SetInteractorStyle(None)
        view.SetInteractor(interactor)
        self.__dict__.update(_node=None, _observations=[], _view=view, _size=(400, 170))
        self._render()  # the application's window is there before its first chart

    def chart(self):
        return self._view.GetScene().GetItem(0)

    def scene(self):
        return self._view.GetScene()

    def setMRMLScene(self, scene):
        pass

    def setMRMLPlotViewNode(self, node):
        self.__dict__["_node"] = node
        self._observe()

    def mrmlPlotViewNode(self):
        return self._node

    def chartNode(self):
        return slicer.mrmlScene.GetNodeByID(self._node.GetPlotChartNodeID() or "") if self._node else None

    def click(self, x: float) -> None:
        """What a user's click at x on the bottom axis does, half way up the curves."""
        self._render()
        chart, interactor = self.chart(), self._view.GetInteractor()
        bottom, left = chart.GetAxis(vtk.vtkAxis.BOTTOM), chart.GetAxis(vtk.vtkAxis.LEFT)
        (first, low), (last, _), (_, high) = bottom.GetPoint1(), bottom.GetPoint2(), left.GetPoint2()
        share = (x - bottom.GetMinimum()) / (bottom.GetMaximum() - bottom.GetMinimum())
        interactor.SetEventInformation(round(first + share * (last - first)), round((low + high) / 2))
        del interactor, chart, bottom, left
        gc.collect()
        self._view.GetInteractor().LeftButtonPressEvent()
        gc.collect()
        self._view.GetInteractor().LeftButtonReleaseEvent()

    def draw(self) -> None:
        """Render the chart into the label; the test host calls it before a picture is taken."""
        width, height = get(self, "width"), get(self, "height")
        if self.chartNode() is None or not get(self, "visible") or min(width, height) < 20:
            return
        self.__dict__["_size"] = (width, height)
        self._render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._view.GetRenderWindow())
        grab.ReadFrontBufferOff()
        grab.Update()
        from vtkmodules.util.numpy_support import vtk_to_numpy

        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
        self.setPixmap(QtGui.QPixmap.fromImage(
            QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()))  # fmt: skip

    def _observe(self) -> None:
        """Follow the node, its chart, the chart's series and their tables, and draw them."""
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        chart = self.chartNode()
        series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] if chart else []
        series = [each for each in series if each]
        tables = [each.GetTableNode() for each in series if each.GetTableNode()]
        observed = [each for each in (self._node, chart, *series, *tables) if each]
        self.__dict__["_observations"] = [(each, each.AddObserver("ModifiedEvent", self._changed)) for each in observed]
        self._fill()

    def _changed(self, caller, event) -> None:
        if isValid(self):
            self._observe()
            self._render()

    def _fill(self) -> None:
        chart, chart_node = self.chart(), self.chartNode()
        chart.ClearPlots()
        for index in range(chart_node.GetNumberOfPlotSeriesNodes() if chart_node else 0):
            series = chart_node.GetNthPlotSeriesNode(index)
            table = series.GetTableNode() if series else None
            if not table:
                continue
            bars = series.GetPlotType() in (series.PlotTypeBar, series.PlotTypeScatterBar)
            plot = chart.AddPlot(vtk.vtkChart.BAR if bars else vtk.vtkChart.LINE)
            plot.SetInputData(table.GetTable(), series.GetXColumnName(), series.GetYColumnName())
            plot.SetColorF(*series.GetColor())
            plot.SetWidth(series.GetLineWidth())
            plot.SetLabel(series.GetName())
            if not bars:
                plot.SetMarkerStyle({series.MarkerStyleNone: 0}.get(series.GetMarkerStyle(), 4))
                plot.SetMarkerSize(series.GetMarkerSize())
                if series.GetLineStyle() == series.LineStyleNone:
                    plot.GetPen().SetLineType(0)
        if chart_node:
            chart.SetShowLegend(chart_node.GetLegendVisibility())
            chart.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chart_node.GetXAxisTitle() or "")
            left = chart.GetAxis(vtk.vtkAxis.LEFT)
            left.SetTitle(chart_node.GetYAxisTitle() or "")
            if not chart_node.GetYAxisRangeAuto():
                left.SetBehavior(vtk.vtkAxis.FIXED)
                left.SetRange(*chart_node.GetYAxisRange())

    def _render(self) -> None:
        self._view.GetRenderWindow().SetSize(*self._size)
        self._view.GetRenderWindow().Render()
