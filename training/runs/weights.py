"""Writing a potential in training to this package's checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint


def save_potential(potential: Potential, path: str | os.PathLike[str], **extra: Any) -> Path:
    """Write configuration and weights; `extra` goes into the header's extra facts (JSON-able)."""
    return save_checkpoint(potential, Path(path), extra_info=extra)
