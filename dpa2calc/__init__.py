"""dpa2calc: DPA-2 large atomic models behind one line of ASE."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from dpa2calc.shared_cores import sleep_when_idle
from dpa2calc.version import __version__

if TYPE_CHECKING:
    from dpa2calc.calculator import DPA2Calculator
    from dpa2calc.description import available_heads
    from dpa2calc.store.load import load_model
    from dpa2calc.store.registry import available_models

sleep_when_idle()  # here, because it has to come before torch

# Public name -> module. Imported when first used, so that `import dpa2calc` takes no time.
_PUBLIC = {
    "DPA2Calculator": "dpa2calc.calculator",
    "available_heads": "dpa2calc.description",
    "available_models": "dpa2calc.store.registry",
    "load_model": "dpa2calc.store.load",
}

# In a checkout the folders of `dpa2calc.training` and `dpa2calc.applications` stand beside this one;
# `python -m dpa2calc` and `torchrun -m dpa2calc.cli.main` begin in the current folder and have to find them.
_here = Path(__file__).resolve().parent
if not (_here / "training").is_dir() and (_here.parent / "training" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

__all__ = ["DPA2Calculator", "__version__", "available_heads", "available_models", "load_model"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'dpa2calc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
