"""Where benchmarks keep what costs a minute and never changes."""

import tempfile
from pathlib import Path

# Neutral sentences by the base model's fingerprint: sampled once a machine, as a data folder keeps them once a base.
KEPT = Path(tempfile.gettempdir()) / "errata-benchmarks"
