"""Stand-ins for the parts of Slicer's Python that slicer-core does not hold: module base classes, parameter nodes.

They behave as Slicer's own sources say, for the types and widgets that the module uses.
"""

from __future__ import annotations

import os
import sys
import types
import typing
from dataclasses import dataclass

import slicer


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", name)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().moduleAboutToBeUnloaded.connect(self._onModuleAboutToBeUnloaded)

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", name)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def _onModuleAboutToBeUnloaded(self, name: str):
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().moduleAboutToBeUnloaded.disconnect(self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest:
    pass


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float


def parameterNodeWrapper(cls):
    """Typed properties kept in a vtkMRMLScriptedModuleNode, tied both ways to widgets by ``SlicerParameterName``.

    Node parameters are node references; a missing node is None, and is written to the widget.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = {name: vars(cls).get(name) for name in hints}
    for name, hint in hints.items():
        setattr(cls, name, _parameter(name, typing.get_args(hint)[0] if typing.get_args(hint) else hint))

    def init(self, node):
        self.parameterNode = node
        self._connections, self._updating = {}, False
        for name, default in defaults.items():
            if default is not None and not node.GetParameter(name):
                setattr(self, name, default)

    def connectGui(self, ui) -> int:
        connectors = [_Connector(self, widget, hints[widget.property("SlicerParameterName")])
                      for widget in list(vars(ui).values()) if widget.property("SlicerParameterName")]  # fmt: skip
        for connector in connectors:
            connector.show()
            connector.listen()

        def changed(caller, event):
            if not self._updating:
                self._updating = True
                for connector in connectors:
                    connector.show()
                self._updating = False

        tag = self.AddObserver("ModifiedEvent", changed)
        self._connections[tag] = connectors
        return tag

    def disconnectGui(self, tag) -> None:
        for connector in self._connections.pop(tag, ()):
            connector.active = False
        if tag is not None:
            self.RemoveObserver(tag)

    cls.__init__ = init
    cls.connectGui, cls.disconnectGui = connectGui, disconnectGui
    cls.AddObserver = lambda self, *arguments: self.parameterNode.AddObserver(*arguments)
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    return cls


def _parameter(name: str, kind: type) -> property:
    if issubclass(kind, slicer.vtkMRMLNode):

        def read(self):
            return self.parameterNode.GetNodeReference(name)

        def write(self, node):
            self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None)
    else:
        parse = {bool: lambda text: text == "True"}.get(kind, kind)

        def read(self):
            return parse(self.parameterNode.GetParameter(name))

        def write(self, value):
            self.parameterNode.SetParameter(name, str(value))

    return property(read, write)


class _Connector:
    """One widget and one parameter. The kinds are told apart as Slicer's connectors do: by the widget's exact type."""

    def __init__(self, wrapper, widget, hint):
        self.wrapper, self.widget, self.active = wrapper, widget, False
        self.name = widget.property("SlicerParameterName")
        kinds = {"QCheckBox": ("checked", "stateChanged"), "ctkSliderWidget": ("value", "valueChanged"),
                 "QPushButton": ("checked", "toggled")}  # fmt: skip
        kind = type(widget).__name__
        if kind == "qMRMLNodeComboBox":
            self.signal = widget.currentNodeChanged
        elif kind in kinds:
            self.attribute, signal = kinds[kind]
            self.signal = getattr(widget, signal)
        else:
            raise RuntimeError(f"no connector of parameter '{self.name}' to a {kind}")
        if kind == "ctkSliderWidget":
            bounds = [part for part in typing.get_args(hint) if isinstance(part, WithinRange)]
            if not bounds:
                raise RuntimeError(f"parameter '{self.name}': a ctkSliderWidget needs a WithinRange annotation")
            widget.minimum, widget.maximum = bounds[0].minimum, bounds[0].maximum

    def show(self) -> None:
        value = getattr(self.wrapper, self.name)
        if hasattr(self, "attribute"):
            setattr(self.widget, self.attribute, value)
        else:
            self.widget.setCurrentNode(value)

    def listen(self) -> None:
        self.active = True
        self.signal.connect(self.changed)

    def changed(self, *_) -> None:
        if self.active and not self.wrapper._updating:
            value = getattr(self.widget, self.attribute) if hasattr(self, "attribute") else self.widget.currentNode()
            setattr(self.wrapper, self.name, value)


def install() -> None:
    """Make ``slicer.ScriptedLoadableModule``, ``slicer.parameterNodeWrapper`` and ``slicer.i18n`` importable."""
    bases = {cls.__name__: cls for cls in (ScriptedLoadableModule, ScriptedLoadableModuleWidget,
                                           ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)}  # fmt: skip
    contents = {
        "ScriptedLoadableModule": bases,
        "parameterNodeWrapper": {"parameterNodeWrapper": parameterNodeWrapper, "WithinRange": WithinRange},
        "i18n": {"tr": lambda text: text, "translate": lambda context, text: text},
    }
    for name, members in contents.items():
        module = types.ModuleType(f"slicer.{name}")
        vars(module).update(members)
        sys.modules[f"slicer.{name}"] = module
        if name != "parameterNodeWrapper":
            setattr(slicer, name, module)
