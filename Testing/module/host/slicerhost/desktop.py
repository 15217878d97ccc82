"""A main window for one module: load it, click it, wait for it, look at it."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from slicerhost import launcher, pythonqt, scripted
from slicerhost.application import Application
from slicerhost.log import ApplicationLog

BORDERS = {"Red": "#f34a33", "1": "#7373c8", "Yellow": "#edd54c", "Green": "#6eb04b"}


class Gap(NamedTuple):
    """Between two events, in s: work of the main thread, which other processes do not stretch, and time that passed."""

    work: float
    wall: float

    def __str__(self) -> str:
        return f"{1000 * self.wall:.0f} ms, {1000 * self.work:.0f} ms of them work"


class MessageBox:
    """``qt.QMessageBox`` with buttons of one's own: answered by the desktop, not by a user."""

    AcceptRole, RejectRole, DestructiveRole, ActionRole = range(4)
    desktop: Desktop

    def __init__(self, parent=None):
        self.buttons, self.text, self.windowTitle = [], "", ""

    def addButton(self, text: str, role: int):
        button = types.SimpleNamespace(text=text)
        self.buttons.append(button)
        return button

    def setDefaultButton(self, button) -> None:
        pass

    setEscapeButton = setDefaultButton

    def exec_(self) -> None:
        desktop = self.desktop
        desktop.dialogs.append(("choose", self.text))
        desktop.choices = [button.text for button in self.buttons]
        wanted = {True: 0, False: 1}.get(desktop.answer, desktop.answer)
        index = wanted if isinstance(wanted, int) else desktop.choices.index(wanted)
        self.chosen = self.buttons[index]

    def clickedButton(self):
        return self.chosen


class Desktop:
    """The application of one test process, with the dialogs it would have shown, and its log."""

    def __init__(self, folder: Path):
        self.log = ApplicationLog()
        launcher.install(folder)
        self.app = slicer.app = Application(folder)
        slicer.mrmlScene = self.app.scene
        slicer.modules = self.app.modules
        pythonqt.install()
        from slicerhost import standins  # noqa: F401  (registers the stand-ins)

        slicer.qSlicerWidget = slicer.qMRMLWidget
        scripted.install()
        for view in self.app.layoutManager().views.values():
            view.rendered  # noqa: B018  (its displayable managers listen to the scene from the start)
        self.dialogs: list[tuple[str, str]] = []  # (kind, text)
        self.answer: bool | str = True  # the first button or the second, or one by its text
        self.choices: list[str] = []  # the buttons of the last question
        self.file = ""  # that the user picks in a file dialog
        self.typed = ""  # what the user types when asked for a name
        for kind in ("info", "warning", "error"):
            setattr(slicer.util, f"{kind}Display", self._dialog(kind))
        for kind in ("confirmOkCancel", "confirmYesNo"):
            setattr(slicer.util, f"{kind}Display", self._dialog(kind))
        qt = sys.modules["qt"]  # PythonQt gives the path alone, PySide a pair
        qt.QFileDialog = types.SimpleNamespace(
            getOpenFileName=lambda *_: self.file, getSaveFileName=lambda *_: self.file
        )
        MessageBox.desktop = self
        qt.QMessageBox = MessageBox
        qt.QInputDialog = types.SimpleNamespace(getText=self._typed)
        self.window = None

    def _typed(self, parent, title, label, mode, text) -> str:
        self.dialogs.append(("text", label))
        return self.typed

    def _dialog(self, kind: str):
        def show(text, *_, **__):
            self.dialogs.append((kind, text))
            return self.answer

        return show

    def load_module(self, path: Path):
        """Register a scripted module and build its widget, as opening it in the application does."""
        gc.freeze()  # what is there before the module is no concern of its collections, which come often
        name = path.stem
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        parent = types.SimpleNamespace(path=str(path), title="", icon=None)
        getattr(module, name)(parent)
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(path=str(path), name=name, parent=parent))
        panel = slicer.qMRMLWidget()
        panel.setLayout(QtWidgets.QVBoxLayout())
        panel.layout().setContentsMargins(4, 4, 4, 4)
        panel.setMRMLScene(slicer.mrmlScene)
        widget = getattr(module, name + "Widget")(panel)
        setattr(slicer.modules, name + "Widget", widget)
        widget.setup()
        widget.layout.addStretch(1)
        if hasattr(widget, "enter"):
            widget.enter()
        return widget

    def unload_module(self, widget) -> None:
        slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(widget.moduleName)
        widget.parent.hide()

    def wait(self, condition, seconds: float = 60.0) -> Gap:
        """Run the event loop until the condition holds; gives back the longest gap between two timer events.

        Raises:
            TimeoutError: it did not hold in time.
        """
        longest, last = Gap(0.0, 0.0), (time.thread_time(), time.perf_counter())

        def beat():
            nonlocal longest, last
            now = time.thread_time(), time.perf_counter()
            longest = Gap(max(longest.work, now[0] - last[0]), max(longest.wall, now[1] - last[1]))
            last = now

        timer = QtCore.QTimer()
        timer.timeout.connect(beat)
        timer.start(2)
        until = time.perf_counter() + seconds
        gc.collect()
        last = time.thread_time(), time.perf_counter()
        while not condition():
            if time.perf_counter() > until:
                raise TimeoutError(f"not within {seconds} s")
            self.app.qt.processEvents(QtCore.QEventLoop.AllEvents, 10)
            time.sleep(0.001)
        timer.stop()
        return longest

    def show(self, widget, width: int = 440, height: int = 900) -> None:
        """A window with the module's panel on the left and four views on the right."""
        scroll = QtWidgets.QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setWidget(widget.parent)
        scroll.setMinimumWidth(width)
        views = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(views)
        grid.setSpacing(2)
        grid.setContentsMargins(0, 0, 0, 0)
        layout = self.app.layoutManager()
        self.labels = {}
        for index, name in enumerate(("Red", "1", "Yellow", "Green")):
            label = QtWidgets.QLabel()
            label.setStyleSheet(f"border-top: 12px solid {BORDERS[name]}; background: black")
            label.setAlignment(QtCore.Qt.AlignCenter)
            grid.addWidget(label, index // 2, index % 2)
            self.labels[name] = (label, layout.views.get(name, layout.three_d))
        splitter = QtWidgets.QSplitter()
        splitter.addWidget(scroll)
        splitter.addWidget(views)
        splitter.setSizes([width, 790])
        self.window = QtWidgets.QMainWindow()
        self.window.setCentralWidget(splitter)
        self.window.resize(width + 800, height)
        self.window.show()
        self.app.processEvents()

    def enter_module(self, widget, entered: bool = True) -> None:
        """Switch to the module, or away from it to another."""
        widget.parent.isEntered = entered
        widget.enter() if entered else widget.exit()
        self.app.processEvents()

    def screenshot(self, path: Path, quality: int = 90) -> None:
        for label, view in self.labels.values():
            pixels = np.ascontiguousarray(view.picture())
            rows, columns, _ = pixels.shape
            image = QtGui.QImage(pixels.data, columns, rows, 3 * columns, QtGui.QImage.Format_RGB888)
            label.setPixmap(QtGui.QPixmap.fromImage(image.copy()))
        for plot in self.window.findChildren(slicer.qMRMLPlotView):
            plot.draw()
        self.app.processEvents()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.window.grab().save(str(path), None, quality):
            raise OSError(f"{path}: no picture was written")


def click(button) -> None:
    """Press a button as a user does, who cannot where it is disabled, or not in sight."""
    if not pythonqt.get(button, "enabled"):
        raise AssertionError(f"{button.name} is disabled")
    if button.isHidden():
        raise AssertionError(f"{button.name} is hidden")
    gc.collect()
    button.click()


def pick(selector, node) -> None:
    """Choose a node in a selector as a user does; None for its first entry."""
    combo = selector._combo
    index = combo.findData(node.GetID() if node else "")
    if index < 0:
        raise AssertionError(f"{selector.name} does not offer {node.GetName()}")
    gc.collect()
    combo.setCurrentIndex(index)
    combo.activated.emit(index)
