"""The samples as Slicer's Sample Data module takes them, and the phantom in the scene."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.module.scene.sample_data import loadPhantom, register


class SampleDataLogic:
    """What Slicer's own demands of a source: fields that can be counted, one value for each address."""

    def __init__(self):
        self.sources = {}

    def registerCustomSampleDataSource(self, category, sampleName, uris, fileNames, nodeNames, **more):
        assert all(isinstance(field, str) for field in (category, sampleName, uris, fileNames, nodeNames))
        assert set(more) <= {"checksums", "customDownloader"}
        self.sources[category, sampleName] = types.SimpleNamespace(uris=uris, fileNames=fileNames, **more)


@pytest.fixture
def sources(monkeypatch) -> dict:
    logic = SampleDataLogic()
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    register()
    return logic.sources


def test_both_samples_are_registered(sources):
    assert set(sources) == {("SAMMix", "CTLiver"), ("SAMMix", "LiverPhantom")}


def test_the_public_scan_is_checked_by_the_hash_in_its_address(sources):
    scan = sources["SAMMix", "CTLiver"]
    digest = scan.checksums.removeprefix("SHA256:")
    assert len(digest) == 64 and scan.uris.endswith(f"/SHA256/{digest}")
    assert scan.fileNames == "CTLiver.nrrd", "the name of Slicer's own copy in the cache: it is downloaded once"


def test_the_phantom_is_drawn_here(clinic, sources):
    node = sources["SAMMix", "LiverPhantom"].customDownloader(None)
    drawn = make_phantom().ct
    assert np.array_equal(slicer.util.arrayFromVolume(node), sitk.GetArrayFromImage(drawn))
    origin = np.array(drawn.GetOrigin()) * (-1, -1, 1)
    assert node.GetOrigin() == pytest.approx(origin) and node.GetSpacing() == pytest.approx(drawn.GetSpacing())
    assert clinic.view.GetBackgroundVolumeID() == node.GetID()


def test_the_phantom_can_be_saved_with_the_scene(clinic):
    assert loadPhantom().GetStorageNode() is None, "its temporary file is gone"
