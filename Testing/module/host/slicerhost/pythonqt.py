"""PySide6 presented as PythonQt's ``qt`` and ``ctk`` modules, with PythonQt's rules.

* Qt properties are attributes: ``w.text``, ``w.enabled = False``; ``w.text()`` fails, as it does in Slicer.
* Writing an attribute that a C++ widget does not have raises, so that a slip of the pen is found.
* ``w.connect("signal(args)", f)`` finds the signal by its C++ signature.
* ``qt.X`` is one flat namespace; ``qt.QUiLoader`` makes stand-ins for the custom widgets of a ``.ui`` file.
"""

from __future__ import annotations

import inspect
import sys
import types
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Property, QObject

qt = types.ModuleType("qt")
ctk = types.ModuleType("ctk")

VIRTUAL = {"sizeHint", "minimumSizeHint", "spacing", "duration", "totalDuration"}  # Shiboken calls these as overrides
STANDINS: dict[str, type] = {}
SIGNALS: dict[type, set[str]] = {}  # of stand-ins: C++ signatures
_alive = []  # the loader's widgets: Python's half must live as long as C++'s


def install() -> None:
    """Patch PySide6's classes and put ``qt`` and ``ctk`` among the importable modules; once a process."""
    if "qt" in sys.modules:
        return
    for module in (QtCore, QtGui, QtWidgets):
        vars(qt).update({name: getattr(module, name) for name in dir(module) if not name.startswith("_")})
    QObject.name = _property("objectName")
    QObject.className = lambda self: getattr(type(self), "standin_for", None) or self.metaObject().className()
    for cls in _classes():
        _patch(cls)
    qt.QUiLoader = UiLoader
    sys.modules.update(qt=qt, ctk=ctk)


def standin(*signals: str):
    """Register a class as the stand-in of the CTK or qMRML widget of the same name, with its C++ signals."""

    def register(cls: type) -> type:
        import slicer

        STANDINS[cls.__name__] = cls
        SIGNALS[cls] = set(signals)
        cls.standin_for = cls.__name__
        setattr(ctk if cls.__name__.startswith("ctk") else slicer, cls.__name__, cls)
        return cls

    return register


def get(widget: QObject, name: str):
    """A property of a Qt object, whatever the patched class says."""
    return QObject.property(widget, name)


def _classes() -> list[type]:
    found, todo = [QObject], [QObject]
    while todo:
        for cls in todo.pop().__subclasses__():
            if cls not in found and cls.__module__.startswith("PySide6"):
                found.append(cls)
                todo.append(cls)
    return found


def _property(name: str) -> property:
    def read(self):
        return QObject.property(self, name)

    def write(self, value):
        meta = self.metaObject()
        index = meta.indexOfProperty(name)
        if index >= 0 and not meta.property(index).isWritable():
            raise AttributeError(f"property '{name}' of {self.className()} cannot be written")
        if not self.setProperty(name, value):
            raise TypeError(f"property '{name}' of {self.className()}: cannot convert {value!r}")

    return property(read, write)


def _patch(cls: type) -> None:
    meta = getattr(cls, "staticMetaObject", None)
    for index in range(meta.propertyOffset(), meta.propertyCount()) if meta else ():
        name = meta.property(index).name()
        if name not in VIRTUAL:
            setattr(cls, name, _property(name))
    plain = cls.__getattribute__
    mine = {"connect": _connect, "disconnect": _disconnect}

    def getattribute(self, name):  # PySide's own connect cannot be replaced by an attribute of the class
        return types.MethodType(mine[name], self) if name in mine else plain(self, name)

    cls.__getattribute__ = getattribute
    cls.__setattr__ = _set


def _set(self, name, value) -> None:
    cls = type(self)
    if cls.__module__.startswith("PySide6") and not hasattr(cls, name):
        raise AttributeError(f"{cls.__name__} has no attribute '{name}', and PythonQt makes no new ones")
    found = inspect.getattr_static(cls, name, None)
    if isinstance(found, Property):
        self.setProperty(name, value)
    elif hasattr(type(found), "__set__"):
        found.__set__(self, value)
    else:
        self.__dict__[name] = value


def _signal(self, signature: str):
    wanted = "".join(signature.replace("const ", "").replace("&", "").split())
    name, arguments = wanted.rstrip(")").split("(", 1)
    own = {known for cls in type(self).__mro__ for known in SIGNALS.get(cls, ())}
    if wanted in own:
        return getattr(self, name)
    if self.metaObject().indexOfSignal(wanted) < 0:
        raise AttributeError(f"{self.className()} has no signal '{wanted}'; its own are {sorted(own)}")
    signal = getattr(self, name)
    try:
        return signal[arguments] if arguments else signal
    except (KeyError, IndexError):
        return signal


def _connect(self, signature: str, slot) -> bool:
    _signal(self, signature).connect(slot)
    return True


def _disconnect(self, signature: str, slot) -> bool:
    try:
        _signal(self, signature).disconnect(slot)
    except (RuntimeError, TypeError):
        return False
    return True


class UiLoader(QtUiTools.QUiLoader):
    """Loads a ``.ui`` file with stand-ins for its custom widgets, and makes its ``mrmlSceneChanged`` connections."""

    def createWidget(self, class_name, parent=None, name=""):
        if class_name in STANDINS:
            widget = STANDINS[class_name](parent)
            widget.setObjectName(name)
        elif class_name.startswith(("ctk", "qMRML", "qSlicer")):
            self.__dict__.setdefault("missing", []).append(f"{class_name} ({name})")
            widget = QtWidgets.QWidget(parent)  # an exception through C++ would end the process
        else:
            widget = QtUiTools.QUiLoader.createWidget(self, class_name, parent, name)
        _alive.append(widget)
        return widget

    def load(self, file, parent=None):
        path = file.fileName() if isinstance(file, QtCore.QFile) else file
        tree = ElementTree.parse(path)
        made = [each for each in tree.iter("connection") if "vtk" in each.findtext("signal")]  # here, not by Qt
        for connections in tree.iter("connections"):
            for each in made:
                connections.remove(each)
        text = QtCore.QBuffer()
        text.setData(ElementTree.tostring(tree.getroot()))
        widget = super().load(text, parent)
        if self.__dict__.get("missing"):
            raise RuntimeError(f"{path}: no stand-in for {', '.join(self.missing)}")
        for connection in made:
            sender, signal, receiver, slot = (
                connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")
            )
            ends = [widget if get(widget, "objectName") == end else widget.findChild(QObject, end)
                    for end in (sender, receiver)]  # fmt: skip
            if None in ends:
                raise RuntimeError(f"{path}: a connection names an unknown object: {sender} to {receiver}")
            getattr(ends[0], signal.split("(")[0]).connect(getattr(ends[1], slot.split("(")[0]))
        return widget
