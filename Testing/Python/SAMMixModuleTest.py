"""The installed extension inside Slicer: run by ctest, and by the host's tests so that it stays true."""

import sys
import unittest

import slicer


class SAMMixModuleTest(unittest.TestCase):
    def setUp(self):
        from SAMMix import addLibraryToPath

        addLibraryToPath()
        slicer.mrmlScene.Clear(False)

    def phantom(self):
        """A small CT volume and its true liver [k, j, i]."""
        import numpy as np
        import SimpleITK as sitk

        from SAMMixLib.data.phantom import make_phantom

        drawn = make_phantom(size=(128, 128, 24))
        matrix = np.diag([*drawn.ct.GetSpacing(), 1.0])
        matrix[:3, 3] = drawn.ct.GetOrigin()
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix  # from LPS to RAS
        volume = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(drawn.ct), matrix, "Phantom")
        return volume, sitk.GetArrayFromImage(drawn.liver)

    def test_module_is_loaded(self):
        self.assertTrue(hasattr(slicer.modules, "sammix"))

    def test_torch_stays_out_of_this_process(self):
        from SAMMix import SAMMixLogic

        before = "torch" in sys.modules
        SAMMixLogic().newSession(None)
        self.assertEqual("torch" in sys.modules, before)

    def test_starter_model_is_installed_whole(self):
        from SAMMixLib.models.card import open_bundle, verify_bundle
        from SAMMixLib.paths import starter_folder

        verify_bundle(open_bundle(starter_folder()))

    def test_samples_are_registered(self):
        from SAMMix import registerSampleData

        registerSampleData()
        registered = slicer.modules.sampleDataSources["SAMMix"]
        self.assertEqual({source.sampleName for source in registered}, {"CTLiver", "LiverPhantom"})

    def test_liver_is_written_and_read_back(self):
        from SAMMixLib.module.scene.segments import createSegmentation, readSegment, writeSegment

        volume, liver = self.phantom()
        segmentation = createSegmentation(volume)
        writeSegment(liver, volume, segmentation)
        self.assertTrue((readSegment(segmentation, volume) == liver).all())

    def test_phantom_is_segmented(self):
        from SAMMix import SAMMixLogic

        logic = SAMMixLogic()
        if missing := logic.missing():
            self.skipTest(f"not installed: {', '.join(missing)}")
        from SAMMixLib.module.scene.segments import readSegment

        volume, liver = self.phantom()
        try:
            found = readSegment(logic.process(volume), volume)
        finally:
            logic.close()
        self.assertGreater(2 * (found & liver).sum() / (found.sum() + liver.sum()), 0.9)
