"""A scan and its mask in a web page that needs no network: NiiVue, and the voxels in a file beside the page.

The CT in such a file is there to be looked at: 8 bit between -200 and 310 HU, and with fewer voxels where there are
many. Whoever has the folder has these pixels.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import os
import struct
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic, write_text

ASSETS = "viewer/assets"
NIIVUE, LICENCE = "niivue-0.69.0.umd.js.gz", "niivue-LICENSE.txt"
LOWEST, STEP = -200.0, 2.0  # HU of value 0, and of one step of the 8 bit
MOST_PIXELS, MOST_SLICES = 256, 400
SCL_SLOPE = 112  # byte of a NIfTI header; scl_inter follows


def write_assets(directory: Path, with_niivue: bool = True) -> None:
    """Put the viewer's code into ``viewer/assets`` of a folder, and NiiVue with its licence.

    Raises:
        OSError: the disk does not take them.
    """
    source, target = files("SAMMixLib.reports") / "viewer_assets", directory / ASSETS
    target.mkdir(parents=True, exist_ok=True)
    contents = {name: (source / name).read_bytes() for name in ("viewer.js", "viewer.css")}
    if with_niivue:
        contents[LICENCE] = (source / LICENCE).read_bytes()
        contents["niivue.js"] = gzip.decompress((source / NIIVUE).read_bytes())
    for name, content in contents.items():
        with atomic(target / name) as beside:
            beside.write_bytes(content)


def write_viewer_scan(volume, mask: sitk.Image, path: Path, key: str) -> None:
    """Write the voxels of a scan and its mask as the script that the viewer loads under `key`.

    Args:
        volume: :class:`SAMMixLib.imaging.volume.Volume`.
        mask: on the volume's grid.

    Raises:
        OSError: the disk does not take it.
    """
    ct, labels = sitk.DICOMOrient(volume.image, "LPS"), sitk.DICOMOrient(mask, "LPS")
    inside = sitk.GetArrayViewFromImage(labels) > 0
    areas = inside.sum(axis=(1, 2))
    middle = int(areas.argmax()) if areas.any() else len(areas) // 2
    size = ct.GetSize()
    factors = [math.ceil(max(size[:2]) / MOST_PIXELS)] * 2 + [math.ceil(size[2] / MOST_SLICES)]
    grey = sitk.Clamp((sitk.Cast(ct, sitk.sitkFloat32) - LOWEST) / STEP, sitk.sitkFloat32, 0, 255)
    grey = sitk.Cast(sitk.Round(sitk.BinShrink(grey, factors)), sitk.sitkUInt8)
    share = sitk.BinShrink(sitk.Cast(labels != 0, sitk.sitkFloat32), factors)
    data = {
        "ct": _nifti(grey, (STEP, LOWEST)),
        "mask": _nifti(sitk.Cast(share >= 0.5, sitk.sitkUInt8), (1.0, 0.0)),
        "slices": size[2],
        "middle": middle,
    }
    with atomic(path) as beside:
        beside.write_text(f"sammix.scan({_script_json(key)}, {_script_json(data)});\n", encoding="utf-8")


def write_viewer(volume, mask: sitk.Image, review: Sequence[int], directory: str | Path) -> Path:
    """Write ``viewer.html`` into the folder of a report, and what it needs into ``viewer`` beside it.

    Args:
        review: slices to look at first, as :func:`SAMMixLib.inference.quality.slices_to_review` gives them.

    Returns:
        the path of ``viewer.html``.

    Raises:
        SAMMixError: the files cannot be written.
    """
    directory = Path(directory)
    try:
        write_assets(directory)
        write_viewer_scan(volume, mask, directory / "viewer" / "scan.js", key="scan")
        write_text(directory / "viewer.html", _page(volume.name, [int(k) for k in review]))
    except OSError as error:
        raise SAMMixError(f"{directory}: the viewer cannot be written ({error.strerror}); check the space") from None
    return directory / "viewer.html"


def _nifti(image: sitk.Image, scale: tuple[float, float]) -> str:
    """A gzipped NIfTI file as base64; value * scale[0] + scale[1] is what its voxels mean."""
    descriptor, name = tempfile.mkstemp(suffix=".nii")
    os.close(descriptor)
    try:
        sitk.WriteImage(image, name)
        content = bytearray(Path(name).read_bytes())
    finally:
        os.unlink(name)
    struct.pack_into("<2f", content, SCL_SLOPE, *scale)
    return base64.b64encode(gzip.compress(bytes(content), 6, mtime=0)).decode()


def _script_json(value: object) -> str:
    """JSON that is safe inside a script, whatever a name holds."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _page(title: str, review: list[int]) -> str:
    return _TEMPLATE.replace("{title}", html.escape(title)).replace("{review}", _script_json(review))


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="connect-src data: blob:; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="viewer/assets/viewer.css">
<style>
body { margin: 0; padding: 1rem; font: 15px/1.5 system-ui, "Segoe UI", Roboto, Arial, sans-serif; color: #1d252d; }
h1 { margin: 0 0 .6rem; font-size: 1.2rem; overflow-wrap: anywhere; }
#viewer .viewer-frame { height: calc(100vh - 10rem); }
</style>
</head>
<body>
<h1>{title}</h1>
<div id="viewer"></div>
<p>For research use only. Not for diagnosis. <kbd>r</kbd>: next slice to review.
<a href="report.html">Report</a></p>
<script src="viewer/assets/viewer.js"></script>
<script>
const viewer = new ScanViewer(document.getElementById("viewer"));
viewer.show("scan", "viewer/scan.js", {review});
document.addEventListener("keydown", (event) => { if (event.key === "r") viewer.nextReview(); });
</script>
</body>
</html>
"""
