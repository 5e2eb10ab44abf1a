"""dpa2calc: DPA-2 large atomic models behind one line of ASE."""

from dpa2calc.version import __version__

__all__ = ["__version__"]
