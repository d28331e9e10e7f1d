"""What performance claims are made of: ratios measured side by side in one run, over real sockets and processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the stage that starts real programs
