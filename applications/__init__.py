"""Applications on any ASE calculator (installed as dpa2calc.applications)."""

from .md import run_md
from .md_config import MDConfig
from .md_result import MDResult

__all__ = ["MDConfig", "MDResult", "run_md"]
