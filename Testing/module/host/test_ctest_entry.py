"""Slicer's ctest entry, run here: what needs the application is left to it, all else must hold."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import slicer

ENTRY = Path(__file__).resolve().parents[2] / "Python" / "SAMMixModuleTest.py"


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(category, **source):
        slicer.modules.sampleDataSources.setdefault(category, []).append(types.SimpleNamespace(**source))


def test_the_entry_passes(clinic, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    spec = importlib.util.spec_from_file_location(ENTRY.stem, ENTRY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    assert result.testsRun == 6 and not result.skipped
    assert result.wasSuccessful(), [text for _, text in result.failures + result.errors]
