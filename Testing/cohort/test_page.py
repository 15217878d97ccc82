"""The page to review, opened from disk in Chromium: 5,000 rows, sorted, filtered, a scan in the viewer, marks."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from stub_model import write_scan

from SAMMixLib import read_volume
from SAMMixLib.cohort.page import write_page
from SAMMixLib.cohort.results import COLUMNS
from SAMMixLib.reports.viewer import write_viewer_scan

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and its driver are not here")
ROWS = 5000


def row(number: int) -> dict:
    random = np.random.default_rng(number)
    done = number % 50 != 7
    return dict.fromkeys(COLUMNS) | {
        "scan": f"patient{number // 2:05}/ct{number % 2}", "patient": f"patient{number // 2:05}",
        "status": "done" if done else "failed", "reason": "" if done else "no CT: <b>broken</b>",
        "volume_ml": round(random.normal(1500, 300), 1) if done else None, "mean_hu": 100.0 if done else None,
        "quality": round(random.uniform(0.8, 0.97), 4) if done else None, "to_review": number % 3 if done else None,
        "review": ";".join(map(str, range(4, 4 + number % 3))), "warnings": "no air" if number % 10 == 0 else "",
        "first_slice": 2 if done else None, "last_slice": 9 if done else None, "slices": 12 if done else None,
        "seconds": float(number % 17),
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    for number in range(2):
        volume = read_volume(write_scan(out / "in" / f"{number}.nii.gz", seed=number))
        mask = sitk.Cast(volume.image == 100, sitk.sitkUInt8)
        target = out / "viewer" / "patient00000" / f"ct{number}.js"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_viewer_scan(volume, mask, target, key=f"patient00000/ct{number}")
    return write_page(map(row, range(ROWS)), out, viewer=True, left_out=3)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in ("headless=new", "no-sandbox", "window-size=1500,950", "enable-unsafe-swiftshader",
                   "use-angle=swiftshader", "disable-background-networking", "no-first-run",
                   f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.get(page.as_uri())
    yield browser
    browser.quit()


def picture(browser, name: str) -> None:
    """Keep a screenshot where somebody wants to look at it."""
    if folder := os.environ.get("SAMMIX_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def cells(browser, column: int) -> list[str]:
    script = "return [...document.querySelectorAll('.row')].map((row) => row.children[arguments[0]].textContent)"
    return browser.execute_script(script, column)


def test_page_sorts_filters_and_draws_only_what_is_in_sight(browser):
    assert browser.execute_script("return document.getElementById('shown').textContent") == f"{ROWS} of {ROWS} scans"
    assert browser.execute_script("return document.querySelectorAll('.row').length") < 60
    assert browser.execute_script("return !window.niivue"), "the viewer is loaded before it is needed"
    drawn = browser.execute_script(
        "const seen = new MutationObserver(() => {});"
        "seen.observe(document.body, {childList: true, subtree: true, characterData: true});"
        "document.querySelector('[data-column=volume_ml]').click(); return seen.takeRecords().length;"
    )
    assert 0 < drawn < 200, "only rows in sight are drawn again, whatever the number of scans"
    volumes = [float(text) for text in cells(browser, 3)]
    assert volumes == sorted(volumes) and volumes[0] == round(min(row(n)["volume_ml"] or 9e9 for n in range(ROWS)))
    browser.execute_script(
        "const box = document.getElementById('search'); box.value = 'BROKEN'; box.dispatchEvent(new Event('input'))"
    )
    assert browser.execute_script("return document.getElementById('shown').textContent") == f"100 of {ROWS} scans"
    assert "no CT: <b>broken</b>" in cells(browser, 10)  # shown as text
    browser.execute_script("document.getElementById('clear').click()")
    browser.execute_script("document.querySelectorAll('#plots rect')[12].dispatchEvent(new MouseEvent('click'))")
    shown = browser.execute_script("return shown.length")
    assert 0 < shown < ROWS
    picture(browser, "page")
    browser.execute_script("document.getElementById('clear').click()")


def test_scan_opens_in_the_viewer_with_its_mask_and_is_marked(browser):
    browser.execute_script("document.querySelector('[data-column=scan]').click(); open(shown.findIndex((row) => "
                           "row.scan === 'patient00000/ct1'))")  # fmt: skip
    wait(browser, "return !!viewer?.view && viewer.view.volumes.length === 2 && viewer.note.textContent === ''")
    red = browser.execute_script(
        "viewer.view.drawScene(); const gl = viewer.view.gl; const w = gl.drawingBufferWidth, h = gl.drawingBufferHeight;"  # noqa: E501
        "const pixels = new Uint8Array(4 * w * h); gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);"
        "let red = 0; for (let n = 0; n < pixels.length; n += 4) red += pixels[n] > 90 && pixels[n] > 1.5 * pixels[n + 1];"  # noqa: E501
        "return red / (w * h);"
    )
    picture(browser, "viewer")
    assert 0.01 < red < 0.6
    assert browser.execute_script(
        "return [...document.querySelectorAll('.review-bar button')].map((b) => b.textContent)"
    ) == ["4"]
    for key in ("r", "a", "j", "w"):
        browser.execute_script("document.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key)
    marks = browser.execute_script("return marksAsCsv()").splitlines()
    assert marks[0] == "scan,mark,to_review,review" and len(marks) == 3
    assert marks[1] == '"patient00000/ct1","accept","1","4"' or marks[2] == '"patient00000/ct1","accept","1","4"'


def test_no_error_in_the_console_and_no_request_leaves_the_machine(browser):
    missing = ("thumbnails/", "ERR_FILE_NOT_FOUND")  # these rows have no pictures, and no scans but two
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in errors if not any(word in entry["message"] for word in missing)]
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = {one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"}
    addresses = {address for address in addresses if not address.startswith("chrome://")}  # the browser's own first tab
    assert addresses and all(address.startswith(("file:", "data:", "blob:")) for address in addresses)


def wait(browser, script: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, browser.execute_script(
            "return document.querySelector('.viewer-note')?.textContent"
        )
        time.sleep(0.3)
