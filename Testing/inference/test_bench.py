"""What ``sammix bench`` measures, and what it compares with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from matplotlib.image import imread

from SAMMixLib.cli import main
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.inference import bench, peers
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.paths import starter_folder


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "phantom.nii.gz"
    sitk.WriteImage(make_phantom(size=(64, 64, 10)).ct, str(path))
    return path


def test_a_scan_in_more_slices_keeps_extent_and_voxels(ct, tmp_path):
    before = sitk.DICOMOrient(read_volume(ct).image, "LPS")
    more = read_volume(bench.in_slices(ct, 19, tmp_path / "more.nii.gz")).image
    assert more.GetSize() == (64, 64, 19) and more.GetSpacing()[2] == pytest.approx(before.GetSpacing()[2] / 2)
    assert more.GetOrigin() == pytest.approx(before.GetOrigin())
    each_second = sitk.GetArrayFromImage(more)[::2].astype(int)
    assert np.abs(each_second - sitk.GetArrayFromImage(before)).max() <= 1


def test_the_flops_of_each_stage_are_those_of_its_network():
    model = load_bundle(starter_folder())
    work = bench.stage_gflop(model)
    one = torch.zeros(1, 1, 256, 256)
    assert work["encode"] > 10 > work["decode"] > 0
    assert work["classify"] == pytest.approx(bench.gflop(lambda: model.classify(one)))


@pytest.mark.parametrize(
    ("size", "spacing", "patches"),
    [
        ((300, 512, 512), (0.5, 0.6, 0.6), 1),
        ((300, 512, 512), (1.5, 0.7, 0.7), 4),
        ((150, 512, 512), (5.0, 0.9, 0.9), 16),
    ],
)
def test_patches_of_the_fast_network_cover_the_scan(size, spacing, patches):
    assert peers.fast_patches(size, spacing) == patches


@pytest.mark.slow
def test_the_fast_network_is_of_the_size_it_claims_to_be():
    network = peers.fast_network()
    assert 15e6 < sum(parameter.numel() for parameter in network.parameters()) < 20e6
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (1, peers.FAST_CLASSES, 32, 32, 32)


@pytest.mark.slow
def test_the_command_writes_figures_and_a_chart(ct, tmp_path, monkeypatch, capsys):
    asked = []

    def apart(way, scan, *arguments):
        asked.append((way, read_volume(scan).image.GetSize(), arguments))
        return {"naive": 3.0, "fast": 50.0}[way]

    monkeypatch.setattr(peers, "time_apart", apart)
    assert main(["bench", str(ct), "--slices", "12", "--dtype", "float32", "-o", str(tmp_path / "out")]) == 0
    assert [way for way, *_ in asked] == ["naive", "fast"] and asked[0][1] == (64, 64, 12)
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    (run,) = result["runs"]
    assert run["slices"] == 12 and run["slices_of_stage"]["classify"] > 0
    assert result["other_ways_seconds"] == {"naive": 36.0, "totalsegmentator_fast_sized": 50.0}
    total = run["seconds"]["total"]
    assert result["times_faster"]["totalsegmentator_fast_sized"] == pytest.approx(50 / total, abs=0.01)
    for stage, share in run["share_of_peak"].items():
        assert share == pytest.approx(run["gflop"][stage] / run["seconds"][stage] / run["matmul_peak_gflops"], abs=0.01)
    assert imread(tmp_path / "out" / "bench.png").std() > 0
    assert "TotalSegmentator --fast" in capsys.readouterr().out


@pytest.mark.slow
def test_the_naive_way_is_timed_in_a_process_of_its_own(ct):
    assert peers.time_apart("naive", ct, "cpu", starter_folder(), 1) > 0
