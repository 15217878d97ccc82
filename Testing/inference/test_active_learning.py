"""Which slice to correct next."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.inference.active_learning import (
    SIGNS,
    Candidates,
    candidates,
    facility_location,
    joined,
    reason,
    suggest,
)
from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.models.registry import find_model


def made(doubt, z=None, features=None) -> Candidates:
    n = len(doubt)
    signs = np.zeros((n, len(SIGNS)))
    signs[:, 1] = doubt
    return Candidates(
        np.arange(n) * 2,
        np.arange(n, dtype=float) * 5 if z is None else np.array(z, float),
        signs,
        np.zeros((n, 3)) if features is None else np.array(features, float),
    )


def test_the_most_doubtful_comes_first_and_labelled_ones_never():
    found = made([0.1, 0.9, 0.3, 0.5])
    assert facility_location(found, [False] * 4, 1) == [1]
    assert 1 not in facility_location(found, [False, True, False, False], 4)
    assert sorted(facility_location(found, [False] * 4, 9)) == [0, 1, 2, 3]
    assert facility_location(found, [True] * 4, 2) == []
    assert reason(found, 1).startswith(SIGNS[1])


def test_what_resembles_a_labelled_slice_comes_late():
    alike = made([0.5, 0.5, 0.5], z=[0, 0, 0], features=[[0, 0, 0], [0, 0, 0.1], [9, 0, 0]])
    assert facility_location(alike, [True, False, False], 1) == [2]
    near = made([0.5, 0.5, 0.5], z=[0, 1, 50])
    assert facility_location(near, [True, False, False], 2) == [2, 1]


def test_a_slice_that_stands_for_many_comes_before_a_doubtful_tip():
    many = made([0.9, 0.5, 0.5, 0.5, 0.5], z=[0, 60, 65, 70, 75])
    assert facility_location(many, [False] * 5, 2) in ([2, 0], [3, 0])


def test_several_scans_take_turns():
    one, two = made([0.9, 0.8, 0.8]), made([0.5, 0.4, 0.4])
    every = joined([one, two])
    first, second = facility_location(every, [False] * 6, 2)
    assert first in (0, 1, 2) and second in (3, 4, 5)


@pytest.mark.slow
def test_a_scan_in_which_nothing_is_found_suggests_nothing(tmp_path):
    air = sitk.Image(64, 64, 4, sitk.sitkInt16) - 1000
    air[20:40, 20:40, :] = 40
    sitk.WriteImage(air, tmp_path / "ct.nrrd")
    scan = Scan(Segmenter.from_bundle(find_model("starter"), "cpu"), read_volume(tmp_path / "ct.nrrd"))
    scan.segment()
    assert suggest(scan, [], 3) == []
    nothing, some = candidates(scan), made([0.5, 0.9], features=np.eye(2, 256))
    assert facility_location(joined([nothing, some]), [False, False], 1) == [1]


@pytest.mark.slow
def test_a_segmented_scan_names_slices_that_got_a_box(tmp_path):
    phantom = make_phantom(1, size=(256, 256, 12))
    sitk.WriteImage(phantom.ct, tmp_path / "ct.nrrd")
    scan = Scan(Segmenter.from_bundle(find_model("starter"), "cpu"), read_volume(tmp_path / "ct.nrrd"))
    scan.segment()
    ks = [k for k, _ in suggest(scan, [], 3)]
    assert len(set(ks)) == 3 and all(len(scan.edges[k]) for k in ks)
    others = [k for k, _ in suggest(scan, ks[:1], 3)]
    assert ks[0] not in others and len(set(others)) == 3
