"""Tables and pictures of an experiment, from results whose figures are known."""

from __future__ import annotations

import csv
import io
import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.evaluate import evaluate_slices
from SAMMixLib.evaluation.tables import as_json
from SAMMixLib.experiments import plots
from SAMMixLib.experiments.aggregate import lines
from SAMMixLib.experiments.outputs import write_outputs
from SAMMixLib.experiments.paper_figures import PAPER, published
from SAMMixLib.inference.slices import SlicePredictions

S = 32
LITS, CURVAS = "LiTS test", "CURVAS"


def square(shift: int = 0) -> np.ndarray:
    mask = np.zeros((S, S), bool)
    mask[8:16, 8 + shift : 16 + shift] = True
    return mask


NONE = np.zeros((S, S), bool)
TRUTH = [square(), square(), square(), NONE, NONE, NONE]  # the last has liver that nobody has outlined
DATA = SliceDataset(
    images=np.zeros((6, S, S), np.int16),
    labels=np.array([True, True, True, False, False, True]),
    masks=np.array(TRUTH, np.uint8),
    has_mask=np.arange(6) < 5,
    patients=np.array(list("aabbbb")),
    indices=np.arange(6),
    spacings=np.full((6, 2), 8, np.float32),
)


def scores_of(shift: int, prompt: str, data: SliceDataset = DATA) -> dict:
    """One slice `shift` columns off, one hit; with cam a miss and a false alarm too."""
    cam = prompt == "cam"
    masks = np.array([square(shift), square(), NONE if cam else square(), square() if cam else NONE, NONE, square()])
    provenance = {"data": "squares", "split": "test", "labelled_slices": 5, "seed": 0}
    seen = np.full(len(data), True)
    found = SlicePredictions(masks[: len(data)], np.where(seen, 0.9, 0.0), seen, 0.5, 0.5, boxes=[])
    everything = json.loads(as_json(evaluate_slices(found, data, prompt, provenance)))
    return {key: everything[key] for key in ("summary", "slices")}


def result(row: str, method: str, labelled: int, seed: int = 0, shift: int = 2, all_labels: bool = False) -> dict:
    prompts = ("cam", "oracle") if method.startswith("sam") else ("cam",)
    scores = {prompt: scores_of(shift, prompt) for prompt in prompts}
    return {
        "protocol": "desk",
        "row": row,
        "method": method,
        "labelled_slices": labelled,
        "all_labels": all_labels,
        "seed": seed,
        "steps": None if method == "nnunet" else 100,
        "processor_seconds": None if method == "nnunet" else 480.0,
        "scores": {LITS: scores, CURVAS: scores},
    }


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return [
        result("SAM-Mix-50", "sam_mix", 50, 0, shift=0),
        result("SAM-Mix-50", "sam_mix", 50, 1, shift=4),
        result("SAM-Mix-5", "sam_mix", 5),
        result("SAM-Mix text-50", "sam_mix", 50),
        result("SAM-PP-5", "sam_pp", 5),
        result("SAM-PP-0", "sam_pp", 0),
        result("MultiMix-100", "multimix", 100),
        result("U-Net", "unet", 700, all_labels=True),
        result("U-Net-50", "unet", 50),
        result("nnU-Net", "nnunet", 700, all_labels=True),
    ]


@pytest.fixture(scope="module")
def folder(results: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "desk"
    written = write_outputs(results, folder)
    assert sorted(written) == sorted(folder.iterdir())  # nothing is left beside them
    return folder


def records(path: Path) -> dict[str, dict[str, str]]:
    return {record["row"]: record for record in csv.DictReader(io.StringIO(path.read_text()))}


def test_the_paper_claims_what_its_abstract_says() -> None:
    assert list(PAPER)[:5] == ["U-Net", "nnU-Net", "TransUNet", "MultiMix", "SAM-PP-0"]
    best = PAPER["SAM-Mix-50"]
    others = [row for name, row in PAPER.items() if not name.startswith("SAM-Mix")]
    assert best.lits.dice - max(row.lits.dice for row in others) == pytest.approx(0.051)
    assert best.totalsegmentator.dice - max(row.totalsegmentator.dice for row in others) == pytest.approx(0.254)
    assert published("SAM-Mix-10") is None and published("U-Net-50") is None
    assert published("MultiMix-100") == PAPER["MultiMix"]


def test_rows_stand_in_the_papers_order(results: list[dict]) -> None:
    order = [line.row for line in lines(results, LITS)]
    assert order == [
        "U-Net-50",
        "U-Net",
        "nnU-Net",
        "MultiMix-100",
        "SAM-PP-0",
        "SAM-PP-5",
        "SAM-Mix-5",
        "SAM-Mix-50",
        "SAM-Mix text-50",
    ]


def test_mean_and_deviation_are_over_seeds(results: list[dict]) -> None:
    line = next(line for line in lines(results, LITS) if line.row == "SAM-Mix-50")
    cam, oracle = line.scores["cam"], line.scores["oracle"]
    # A hit, a miss (0), and a slice with Dice 1 or, shifted by half its width, 1/2; without outline, none counts.
    runs = np.array([(1 + 0 + 1) / 3, (1 + 0 + 0.5) / 3])
    assert line.seeds == cam.dice.n == 2
    assert cam.dice.mean == pytest.approx(runs.mean())
    assert cam.dice.sd == pytest.approx(runs.std(ddof=1))
    # 4 columns of 32 are 32 pixels at 256; misses have no distance.
    assert cam.hd_px.mean == pytest.approx(np.mean([0, 32 / 2]))
    assert (cam.missed.mean, cam.false_alarms.mean, cam.masked_without_liver.mean) == (1, 1, 0.5)
    assert oracle.dice.mean == pytest.approx(np.mean([1, 2.5 / 3]))
    assert oracle.missed.mean == 0 and isnan(oracle.masked_without_liver.mean)


def test_csv_keeps_prompt_sources_and_the_papers_figures_apart(folder: Path) -> None:
    table = records(folder / "table1.csv")
    mix, unet, own = table["SAM-Mix-50"], table["U-Net"], table["SAM-Mix text-50"]
    assert float(mix["cam_dice_mean"]) == pytest.approx(1.75 / 3, abs=1e-5)
    assert float(mix["oracle_dice_mean"]) == pytest.approx(2.75 / 3, abs=1e-5)
    assert (mix["seeds"], mix["cam_dice_seeds"], mix["processor_seconds_mean"]) == ("2", "2", "480.0")
    assert (mix["paper_another_protocol_dice"], mix["paper_another_protocol_hd"]) == ("0.948", "9.84")
    assert unet["oracle_dice_mean"] == unet["cam_dice_sd"] == "" and unet["oracle_dice_seeds"] == "0"
    assert own["paper_another_protocol_dice"] == table["nnU-Net"]["processor_seconds_mean"] == ""
    cross = records(folder / "table2.csv")["SAM-Mix-50"]
    assert (cross["test_set"], cross["paper_another_protocol_dice"]) == (CURVAS, "0.923")


def test_markdown_reads_as_a_table(folder: Path) -> None:
    text = (folder / "table1.md").read_text(encoding="utf-8")
    assert f"## {LITS}" in text and CURVAS not in text and "TotalSegmentator" not in text
    assert "Patients: 2. Slices with liver and an outline: 3. Slices without liver: 2." in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {13}
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    mix = table["SAM-Mix-50"]
    assert (mix["cam: Dice"], mix["cam: HD (px)"], mix["cam: missed"]) == ("0.583 ± 0.118", "8.0 ± 11.3", "1")
    assert (mix["cam: masked without liver"], mix["training (min)"]) == ("50.0 %", "8.0")
    assert table["U-Net"]["labelled slices"] == "all (700)"
    assert table["U-Net"]["cam: Dice"].count("±") == 0 and table["U-Net"]["oracle: Dice"] == "-"
    assert table["SAM-PP-0"]["Paper, another protocol: Dice"] == "0.441"
    assert "**another protocol**" in text


def test_a_seed_without_distance_is_told(results: list[dict]) -> None:
    blind = json.loads(json.dumps(results[0])) | {"seed": 2}
    del blind["scores"][LITS]["cam"]["summary"]["slice_hd_px"]
    line = next(line for line in lines([*results, blind], LITS) if line.row == "SAM-Mix-50")
    assert (line.seeds, line.scores["cam"].hd_px.n) == (3, 2)


def test_a_set_without_liver_free_slices(tmp_path: Path) -> None:
    some = result("SAM-Mix-50", "sam_mix", 50)
    livers = DATA.select(np.arange(6) < 3)
    some["scores"] = {LITS: {prompt: scores_of(0, prompt, livers) for prompt in ("cam", "oracle")}}
    files = {path.name for path in write_outputs([some], tmp_path)}
    assert files == {"table1.md", "table1.csv", "boxplots_cam.png", "boxplots_oracle.png", "learning_curve.png"}
    assert records(tmp_path / "table1.csv")["SAM-Mix-50"]["cam_masked_without_liver_mean"] == ""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_png", lambda figure: figures.append(figure) or b"")
    return figures


def test_box_plots_show_every_row_with_its_misses(results: list[dict], drawn: list[Figure]) -> None:
    plots.box_plots(results, [LITS, CURVAS], "cam")
    plots.box_plots(results, [LITS], "oracle")
    cam, oracle = (figure.axes for figure in drawn)
    assert len(cam) == 4
    names = [label.get_text() for label in cam[0].get_xticklabels()]
    assert names == [line.row for line in lines(results, LITS)]
    assert [text.get_text() for text in cam[1].texts] == ["33.3 %"] * len(names)
    assert all(label.get_text().startswith("SAM-") for label in oracle[0].get_xticklabels())


def test_learning_curve_has_the_three_methods_on_the_same_axes(results: list[dict], drawn: list[Figure]) -> None:
    plots.learning_curve(results, [LITS, CURVAS])
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5", "10", "25", "50", "100", "all"]
    curves = {bars.get_label(): bars for bars in axes.containers}
    assert set(curves) == {"SAM-Mix", "SAM-PP", "U-Net"}
    places, dice = curves["SAM-Mix"].lines[0].get_data()
    assert np.round(places).tolist() == [1, 4]  # 5 and 50 labelled slices; the row that is an ablation is not in it
    assert dice[1] == pytest.approx(1.75 / 3)
    assert np.round(curves["U-Net"].lines[0].get_xdata()).tolist() == [4, 6]
    bars = curves["SAM-Mix"].lines[2][0].get_segments()
    assert np.ptp(bars[-1][:, 1]) == pytest.approx(2 * np.std([2 / 3, 0.5], ddof=1))


def test_pictures_are_pictures(folder: Path) -> None:
    for name in ("boxplots_cam.png", "boxplots_oracle.png", "learning_curve.png"):
        assert imread(folder / name)[..., :3].std() > 0.02


def test_results_of_several_protocols_are_refused(results: list[dict], tmp_path: Path) -> None:
    with pytest.raises(SAMMixError, match="desk and paper"):
        write_outputs([*results, results[0] | {"protocol": "paper"}], tmp_path / "mixed")
    with pytest.raises(SAMMixError, match="no protocol"):
        write_outputs([], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
