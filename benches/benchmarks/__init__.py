"""The asv suite. asv imports only this package; the sections of the speed page use its code too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
