"""Two scans for the Sample Data module: a public CT with a liver, and the project's own phantom."""

from __future__ import annotations

import tempfile
from pathlib import Path

import SimpleITK as sitk
import slicer

CATEGORY = "SAMMix"
CT_LIVER = "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"  # SHA-256; MSD liver_100, CC BY-SA 4.0


def register() -> None:
    """Tell the Sample Data module; called once, after start-up."""
    from SampleData import SampleDataLogic

    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="CTLiver",
        uris=f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{CT_LIVER}",
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"SHA256:{CT_LIVER}",
    )
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="LiverPhantom",
        uris="",  # none, but Sample Data counts them
        fileNames="LiverPhantom.nrrd",
        nodeNames="LiverPhantom",
        customDownloader=loadPhantom,
    )


def loadPhantom(source=None):
    """Draw the phantom, which needs no network and no patient, and load it; gives back its volume node."""
    from SAMMixLib.data.phantom import make_phantom  # scipy would hold up the start of the application

    with slicer.util.WaitCursor(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "LiverPhantom.nrrd"
        sitk.WriteImage(make_phantom().ct, str(path))
        node = slicer.util.loadVolume(str(path))
    node.SetName("LiverPhantom")
    slicer.mrmlScene.RemoveNode(node.GetStorageNode())  # its file is gone; the scene saves the voxels elsewhere
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
