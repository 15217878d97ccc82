"""The application's log, as Slicer keeps it: VTK's and Qt's errors and warnings, and exceptions that nobody caught."""

from __future__ import annotations

import sys
import traceback

import vtk
from PySide6 import QtCore

SEVERE = (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg, QtCore.QtMsgType.QtFatalMsg)
HARMLESS = ("This plugin does not support",)  # of Qt's screenless platform, which no user has


class ApplicationLog:
    """Collects, from its making on, what Slicer would write into its log in red or yellow.

    Attributes:
        lines: one string an error or warning.
    """

    def __init__(self):
        self.lines: list[str] = []
        window = vtk.vtkOutputWindow.GetInstance()
        window.SetDisplayModeToNever()
        for event in ("ErrorEvent", "WarningEvent"):
            window.AddObserver(event, self._vtk)
        QtCore.qInstallMessageHandler(self._qt)
        sys.excepthook = self._exception  # slots and observers print what they raise, and go on

    @vtk.calldata_type(vtk.VTK_STRING)
    def _vtk(self, caller, event, text) -> None:
        self.lines.append(f"VTK: {text.strip()}")

    def _qt(self, kind, context, text: str) -> None:
        if kind in SEVERE and not text.startswith(HARMLESS):
            self.lines.append(f"Qt: {text}")

    def _exception(self, kind, error, trace) -> None:
        self.lines.append("".join(traceback.format_exception(kind, error, trace)))
