"""What the command line and the worker set for their own process."""

from __future__ import annotations

import sys
import threading

from SAMMixLib.process import import_beside


def test_a_module_is_imported_beside_and_a_missing_one_says_nothing(tmp_path, monkeypatch, capfd):
    (tmp_path / "beside_me.py").write_text("value = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("beside_me", "not_there_at_all"):
        import_beside(name)
    for thread in threading.enumerate():
        if thread.name.startswith("import "):
            thread.join()
    assert sys.modules.pop("beside_me").value == 1
    assert capfd.readouterr() == ("", "")
