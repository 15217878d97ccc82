"""The heat map comes and goes; what the user had in the foreground stays the user's."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.scene.geometry import ijkToRas
from SAMMixLib.module.scene.hygiene import removeHelpers
from SAMMixLib.module.scene.overlay import hideCam, loadCam, setThreshold, showCam


@pytest.fixture
def camFile(tmp_path):
    """256 grey values on a grid of their own: turned, and with other spacings than the CT."""
    image = sitk.GetImageFromArray(np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    image.SetSpacing((2.0, 3.0, 5.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path := tmp_path / "cam.nrrd"))
    return path


def views() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def state() -> list:
    return [(view.GetForegroundVolumeID(), view.GetForegroundOpacity()) for view in views()]


def test_the_cam_lies_where_its_file_says(makeVolume, linearTransform, camFile):
    volume = makeVolume(transform=linearTransform(np.diag([1.0, 1.0, 1.0, 1.0])))
    cam = loadCam(camFile, volume)
    assert np.allclose(slicer.util.arrayFromVolume(cam).ravel(), np.arange(256) / 255)
    assert np.allclose(ijkToRas(cam)[:, 3], [10, -20, 30, 1])
    assert np.allclose(ijkToRas(cam)[:3, 0], [-1.6, -1.2, 0])
    assert cam.GetParentTransformNode() is volume.GetParentTransformNode()
    assert loadCam(camFile, volume) is cam


def test_a_file_of_some_slices_leaves_the_others_as_they_were(makeVolume, camFile):
    volume = makeVolume()
    before = slicer.util.arrayFromVolume(loadCam(camFile, volume)).copy()
    image = sitk.ReadImage(str(camFile))
    some = sitk.GetImageFromArray(np.zeros((4, 8, 8), np.uint8))
    some.CopyInformation(image)
    sitk.WriteImage(some, str(camFile))
    after = slicer.util.arrayFromVolume(loadCam(camFile, volume, [2]))
    assert not after[2].any() and np.array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert not slicer.util.arrayFromVolume(loadCam(camFile, volume)).any()


def test_the_users_foreground_comes_back_in_every_view(makeVolume, camFile):
    volume, pet = makeVolume(), makeVolume(name="PET")
    red, yellow, _ = views()
    red.SetForegroundVolumeID(pet.GetID())
    red.SetForegroundOpacity(0.7)
    yellow.SetForegroundOpacity(0.2)
    before = state()
    cam = loadCam(camFile, volume)
    showCam(cam, 0.4)
    showCam(cam, 0.5)
    assert state() == [(cam.GetID(), 0.5)] * 3
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cam).GetVisibility()
    hideCam(cam)
    assert state() == before
    assert not slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cam).GetVisibility()
    hideCam(cam)
    assert state() == before


def test_what_the_user_put_there_meanwhile_stays(makeVolume, camFile):
    volume, pet = makeVolume(), makeVolume(name="PET")
    cam = loadCam(camFile, volume)
    showCam(cam, 0.4)
    green = views()[2]
    green.SetForegroundVolumeID(pet.GetID())
    green.SetForegroundOpacity(0.9)
    hideCam(cam)
    assert state() == [(None, 0), (None, 0), (pet.GetID(), 0.9)]


def test_a_foreground_that_is_gone_is_not_restored(scene, makeVolume, camFile):
    volume, pet = makeVolume(), makeVolume(name="PET")
    views()[0].SetForegroundVolumeID(pet.GetID())
    showCam(cam := loadCam(camFile, volume), 0.4)
    scene.RemoveNode(pet)
    hideCam(cam)
    assert views()[0].GetForegroundVolumeID() is None


def test_two_volumes_take_turns_and_leave_the_users_foreground(makeVolume, camFile):
    one, two, pet = makeVolume(), makeVolume(name="second"), makeVolume(name="PET")
    for view in views():
        view.SetForegroundVolumeID(pet.GetID())
    before = state()
    first, second = loadCam(camFile, one), loadCam(camFile, two)
    showCam(first, 0.4)
    showCam(second, 0.4)
    assert {view.GetForegroundVolumeID() for view in views()} == {second.GetID()}
    hideCam(second)
    assert state() == before


def test_removing_a_shown_cam_restores_too(scene, makeVolume, camFile):
    volume, pet = makeVolume(), makeVolume(name="PET")
    views()[0].SetForegroundVolumeID(pet.GetID())
    before = state()
    showCam(loadCam(camFile, volume), 0.4)
    removeHelpers(volume)
    assert state() == before
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeDisplayNode") == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode") == 0


def test_nothing_is_drawn_below_the_threshold(makeVolume, camFile):
    cam = loadCam(camFile, makeVolume())
    setThreshold(cam, 0.6)
    display = cam.GetDisplayNode()
    assert (display.GetLowerThreshold(), display.GetUpperThreshold(), display.GetApplyThreshold()) == (0.6, 1.0, 1)
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)
    assert display.GetColorNode().GetName() == "Inferno"


def test_a_damaged_file_is_said_in_one_line(makeVolume, tmp_path):
    (tmp_path / "cam.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(SAMMixError, match=r"cam.nrrd: the heat map cannot be read"):
        loadCam(tmp_path / "cam.nrrd", makeVolume())
