"""The asv suite. asv finds this package alone; the sections of the speed page, which share its code, lie beside it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
