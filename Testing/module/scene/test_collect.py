"""Slices of volume nodes into a training set and back, and the comparison of two models' segments."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from geometries import Geometry, export, geometries
from hypothesis import HealthCheck, given, settings

from SAMMixLib.data.training_set import LabelledSlices, TrainingSet, patient_name
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.collect import CaseSource
from SAMMixLib.module.scene.compare import comparisonCase, similarity
from SAMMixLib.module.scene.segments import Brush, createSegmentation, writeSegment
from SAMMixLib.structure import LIVER, SPLEEN

TWENTY = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def named(source: CaseSource) -> CaseSource:
    for _ in source.identify():
        pass
    return source


@TWENTY
@given(geometries(), geometries())
def test_slices_of_two_volumes_come_back_exactly_from_one_set(scene, one: Geometry, other: Geometry):
    with TemporaryDirectory() as folder:
        training_set = TrainingSet.create(f"{folder}/set")
        expected = {}
        for name, geometry in (("A", one), ("B", other)):
            volume = geometry.volume(name)
            segmentation = createSegmentation(volume)
            writeSegment(geometry.mask(), volume, segmentation)
            source = named(CaseSource(Case(volume, segmentation)))
            ks = list(range(0, source.total, 2))
            images, masks = source.images(ks), source.masks(ks, LIVER)
            labels, provenance = masks.any((1, 2)), source.provenance()
            training_set.add(LabelledSlices(source.patient, ks, images, source.spacing, labels, masks, provenance))

            file = export(volume, Path(folder, f"{name}.nrrd"))
            stack = Volume(sitk.ReadImage(str(file)), file).axial()  # as the command line sees the scan
            spacing = tuple(float(side) for side in stack.spacing)
            assert source.patient == patient_name(name, stack.array, spacing)
            assert source.spacing == pytest.approx(spacing[1:], abs=1e-5)
            expected |= {(source.patient, k): (stack.array[k], mask) for k, mask in zip(ks, masks, strict=True)}
            whole = CaseSource(Case(volume, segmentation)).masks(range(source.total), LIVER)
            assert whole.sum() == geometry.mask().sum()
            scene.RemoveNode(segmentation)
            scene.RemoveNode(volume)
        assert len(training_set.entries()) == len(expected)
        for entry in training_set.entries():
            image, mask = training_set.load(entry)
            assert np.array_equal(image, expected[entry.key][0]) and np.array_equal(mask, expected[entry.key][1])


def test_the_name_changes_with_the_voxels_and_comes_in_steps(makeVolume):
    volume = makeVolume((20, 8, 10))
    source = CaseSource(Case(volume))
    assert sum(1 for _ in source.identify()) >= 5
    assert source.patient.startswith("CT-")
    slicer.util.arrayFromVolume(volume)[3, 4, 5] += 1
    assert named(CaseSource(Case(volume))).patient != source.patient


def test_masks_are_those_of_the_sets_structure(makeVolume):
    volume = makeVolume((6, 8, 10))
    segmentation = createSegmentation(volume)
    spleen = np.zeros((6, 8, 10), np.uint8)
    spleen[2:4, 1:4, 1:4] = 1
    writeSegment(spleen, volume, segmentation, brush=Brush(SPLEEN))
    case = Case(volume, segmentation)
    source = CaseSource(case)
    assert source.masks(range(6), SPLEEN).sum() == spleen.sum() and not source.masks(range(6), LIVER).any()
    assert source.edited(SPLEEN) == [2, 3] and source.edited(LIVER) == []
    assert case.has_segment(SPLEEN) and not case.has_segment(LIVER) and not case.has_segment()


def test_without_a_segmentation_masks_are_empty(makeVolume):
    source = CaseSource(Case(makeVolume((6, 8, 10))))
    assert source.masks([1, 2], LIVER).shape == (2, 8, 10) and source.edited(LIVER) == []


def test_two_models_on_one_scan(makeVolume):
    volume = makeVolume((6, 8, 10))
    case = Case(volume, createSegmentation(volume))
    other = comparisonCase(volume, "theirs")
    one, two = np.zeros((2, 6, 8, 10), np.uint8)
    one[1:4, 2:6, 2:6] = 1
    two[1:3, 2:6, 2:6] = 1
    for mask, each in ((one, case), (two, other)):
        writeSegment(mask, volume, each.segmentationNode)
    dice, slices = similarity(case, other)
    assert dice == pytest.approx(2 * two.sum() / (one.sum() + two.sum())) and slices == "slice 3"
    assert comparisonCase(volume, "theirs").segmentationNode is other.segmentationNode
    assert comparisonCase(volume, "others").segmentationNode is not other.segmentationNode
    assert other.segmentationNode.GetName() == "CT by theirs"
