"""What an experiment leaves to read: its tables, box plots and learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.aggregate import Result, set_names
from SAMMixLib.experiments.plots import box_plots, learning_curve
from SAMMixLib.experiments.tables import as_csv, as_markdown
from SAMMixLib.reports.report import write_together

IN_DOMAIN = (" test", " validation")
"""End the name of the test set whose patients are of the training data; the others are cross-domain."""


def write_outputs(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write the outputs of one protocol's results into a folder; those that exist are replaced.

    ``table1.md`` and ``.csv`` (in domain), ``table2.md`` and ``.csv`` (cross-domain), ``boxplots_cam.png`` and, with
    SAM rows, ``boxplots_oracle.png``, and ``learning_curve.png``.

    Raises:
        SAMMixError: there are no results, or of several protocols; the files cannot be written.
    """
    protocols = sorted({result["protocol"] for result in results})
    if len(protocols) != 1:
        found = " and ".join(protocols) or "no protocol"
        raise SAMMixError(f"{folder}: results of {found}; give those of one, for others are not comparable")
    names = set_names(results)
    tables = {1: [n for n in names if n.endswith(IN_DOMAIN)], 2: [n for n in names if not n.endswith(IN_DOMAIN)]}
    files: dict[str, bytes] = {}
    for number, own in tables.items():
        if own:
            files[f"table{number}.md"] = as_markdown(results, number, own).encode()
            files[f"table{number}.csv"] = as_csv(results, number, own).encode()
    prompts = dict.fromkeys(prompt for r in results for scores in r["scores"].values() for prompt in scores)
    for prompt in prompts:
        files[f"boxplots_{prompt}.png"] = box_plots(results, names, prompt)
    files["learning_curve.png"] = learning_curve(results, names)
    write_together(folder, files)
    return [folder / name for name in files]
