"""The report: whole, self-contained, and honest when there is nothing to show."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.results import SegmentationResult
from SAMMixLib.reports.montage import COLOURS, TILE, montage_image, montage_slices
from SAMMixLib.reports.report import DISCLAIMER, chart_image, check_report, write_report

FILES = ["chart.png", "montage.png", "report.html", "report.json"]
S = 64


def result_of(slices: int, liver: range) -> SegmentationResult:
    masks = np.zeros((slices, S, S), bool)
    masks[liver.start : liver.stop, 20:40, 10:30] = True
    area = masks.sum((1, 2)) * 4.0
    found = len(liver) > 0
    return SegmentationResult(
        mask=masks,
        slices=np.full((slices, S, S), 90, np.uint8),
        slice_masks=masks,
        cams=np.where(masks, 0.8, 0).astype(np.float16),
        boxes=[[(8, 18, 31, 41)] if k in liver else [] for k in range(slices)],
        p_liver=np.array([0.97 if k in liver else 0.02 for k in range(slices)], np.float32),
        classified=np.ones(slices, bool),
        prompted=np.array([k in liver for k in range(slices)]),
        threshold=0.7,
        keep_threshold=0.28,
        predicted_iou=np.array([0.9 if k in liver else 0 for k in range(slices)], np.float32),
        spacing=(5.0, 2.0, 2.0),
        volume_ml=float(area.sum() * 5 / 1000),
        area_mm2=area.astype(np.float32),
        mean_hu=104.0 if found else float("nan"),
        slice_range=(liver.start, liver.stop - 1) if found else None,
        model_name="starter",
        seconds={"classify": 1.5, "segment": 2.25},
        warnings=("slices are 5 mm apart",),
    )


def test_a_report_speaks_of_what_the_model_segments(result, tmp_path):
    write_report(replace(result, structure="spleen"), tmp_path, "case")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Spleen in slices 4 to 14" in page and "Slices with spleen" in page and "liver" not in page.lower()
    assert json.loads((tmp_path / "report.json").read_text())["structure"] == "spleen"


@pytest.fixture
def result() -> SegmentationResult:
    return result_of(20, range(4, 15))


class Page(HTMLParser):
    """Collects what a page links to, its pictures, and whether its tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in {"img", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read_page(path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def near(image: np.ndarray, colour: str) -> int:
    rgb = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return int((np.abs(image.astype(int) - rgb).max(-1) < 12).sum())


def test_page_stands_alone_and_its_pictures_decode(result, tmp_path):
    path = write_report(result, tmp_path / "out", "Scan 1")
    assert sorted(os.listdir(path.parent)) == FILES
    page = read_page(path)
    assert "http" not in path.read_text(encoding="utf-8")
    assert "<script" not in path.read_text(encoding="utf-8")
    assert all(link.startswith("data:image/") for link in page.links)
    assert len(page.images) == 2
    for image in page.images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"]).groups()
        pixels = imread(io.BytesIO(base64.b64decode(data)), format=kind)
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))
        assert len(image["alt"]) > 20


def test_page_and_json_give_the_figures(result, tmp_path):
    path = write_report(result, tmp_path / "out", "Scan 1")
    words = " ".join(" ".join(read_page(path).words).split())
    for text in ("88 ml", "4 to 14", "104 HU", "starter", "cpu, float32", "3.8 s", "slices are 5 mm apart", DISCLAIMER):
        assert text in words
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["volume_ml"] == pytest.approx(88)
    assert figures["slice_range"] == [4, 14]
    assert figures["mean_hu"] == 104
    assert len(figures["p_liver"]) == len(figures["classified"]) == len(figures["area_mm2"]) == 20


@pytest.mark.slow
def test_the_models_own_thresholds_are_told_and_drawn(result, tmp_path):
    figures = json.loads((write_report(result, tmp_path, "case").parent / "report.json").read_text())
    assert (figures["prompt_threshold"], figures["keep_threshold"]) == (0.7, 0.28)
    assert figures["prompted"] == [4 <= k < 15 for k in range(20)]
    words = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "one of them reaches 0.70 and each reaches 0.28" in words
    two, one = (chart_image(replace(result, keep_threshold=low)) for low in (0.28, 0.7))
    other = two != one
    rows, columns = np.flatnonzero(other.any((1, 2))), np.flatnonzero(other.any((0, 2)))
    assert np.ptp(rows) < 6 and np.ptp(columns) > 1000  # one line more, across the chart


def test_the_rule_along_z_is_told(result, tmp_path):
    page = write_report(replace(result, gate="interval"), tmp_path, "case").read_text(encoding="utf-8")
    words = " ".join(page.split())
    assert (
        "the likeliest run of slices is prompted if one of them reaches 0.70; slices above 0.28 speak for it" in words
    )
    assert json.loads((tmp_path / "report.json").read_text())["gate"] == "interval"


@pytest.mark.slow
def test_the_dice_to_expect_is_told_where_the_model_can(result, tmp_path):
    assert "without a reference" not in write_report(result, tmp_path, "case").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] is None
    expected = np.where([4 <= k < 15 for k in range(20)], 0.95, np.nan)
    expected[[4, 5]] = 0.5
    page = write_report(replace(result, expected_dice=expected), tmp_path, "case").read_text(encoding="utf-8")
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["verdict"] == "look at slices 4 to 5" and "<strong>look at slices 4 to 5</strong>" in page
    assert figures["expected_dice"][3:7] == [None, 0.5, 0.5, 0.95]


def test_text_of_others_is_escaped(result, tmp_path):
    name = '<b onclick="x">Tom & Ann</b> {0}'
    path = write_report(replace(result, model_name=name, warnings=(name,)), tmp_path / "out", name)
    page = read_page(path)
    assert "<b" not in path.read_text(encoding="utf-8").replace("<body", "")
    assert page.words.count(name) == 4  # <title>, <h1>, the model, the warning


@pytest.mark.parametrize(
    ("slices", "liver"), [(20, range(0)), (1, range(1)), (1, range(0)), (2, range(2)), (2, range(1, 2))]
)
def test_scans_that_are_short_or_without_liver(slices, liver, tmp_path):
    path = write_report(result_of(slices, liver), tmp_path / "out", "Scan")
    words = " ".join(read_page(path).words)
    assert ("No liver was found" in words) == (len(liver) == 0)
    assert "nan" not in words
    assert json.loads((tmp_path / "out" / "report.json").read_text())["mean_hu"] == (104 if len(liver) else None)


def test_montage_shows_outlines_box_and_reference_only_where_given(result):
    plain = montage_image(result, count=6, columns=3)
    assert plain.shape == (2 * TILE, 3 * TILE, 3) and plain.dtype == np.uint8
    assert near(plain, COLOURS["prediction"]) and near(plain, COLOURS["box"])
    assert near(plain, COLOURS["reference"]) == 0
    reference = np.roll(result.slice_masks, 6, axis=2)
    assert near(montage_image(result, 6, 3, reference), COLOURS["reference"])


def test_montage_draws_a_mask_that_fills_the_slice(result):
    full = replace(result, slice_masks=np.ones_like(result.slice_masks))
    assert montage_image(full, 4, 2).shape == (2 * TILE, 2 * TILE, 3)


def test_montage_slices_spread_over_the_liver_with_one_beyond_each_end(result):
    assert montage_slices(result, 6) == [15, 14, 11, 7, 4, 3]
    assert montage_slices(result, 40) == list(range(15, 2, -1))
    assert montage_slices(result_of(5, range(5)), 3) == [4, 2, 0]
    assert montage_slices(result_of(9, range(0)), 3) == [8, 4, 0]
    assert len(montage_slices(result, 1)) == 1


def test_missing_parent_folder_is_refused(result, tmp_path):
    with pytest.raises(SAMMixError, match="parent folder does not exist"):
        write_report(result, tmp_path / "a" / "b", "Scan")


def test_a_folder_that_takes_no_files_is_refused_before_the_work(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write into any folder
    with pytest.raises(SAMMixError, match="Permission denied"):
        check_report(tmp_path / "report")


def test_a_failed_write_leaves_nothing_behind(result, tmp_path, monkeypatch):
    def full_disk(self, data):
        if self.name == "report.html":
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    write_bytes = type(tmp_path).write_bytes
    monkeypatch.setattr(type(tmp_path), "write_bytes", full_disk)
    with pytest.raises(SAMMixError, match="No space left on device"):
        write_report(result, tmp_path / "out", "Scan")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_failed_write_keeps_the_report_that_was_there(result, tmp_path, monkeypatch):
    path = write_report(result, tmp_path / "out", "First")
    before = {name: (path.parent / name).read_bytes() for name in FILES}

    def full_disk(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full_disk)
    with pytest.raises(SAMMixError):
        write_report(result, path.parent, "Second")
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == before


def test_importing_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, SAMMixLib.reports.report, SAMMixLib.data.phantom;"
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
