"""``python -m SAMMixLib.worker FOLDER`` is the worker; its client starts it."""

import sys
from pathlib import Path

from SAMMixLib.process import tune_process

tune_process()  # before torch

from SAMMixLib.worker.server import serve  # noqa: E402

serve(Path(sys.argv[1]))
