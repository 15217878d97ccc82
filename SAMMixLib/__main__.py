"""``python -m SAMMixLib`` is the command ``sammix``."""

import sys

from SAMMixLib.cli import main

sys.exit(main())
