"""Models with random options and weights, made and judged by deepmd-kit itself (marked `deepmd`)."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from dpa2calc.calculator import DPA2Calculator

pytestmark = [pytest.mark.deepmd, pytest.mark.filterwarnings("ignore:atoms .* are only:UserWarning")]
MAKER = Path(__file__).with_name("random_models.py")
NUMBER = int(os.environ.get("DPA2CALC_RANDOM_MODELS", "40"))
FIRST = int(os.environ.get("DPA2CALC_FIRST_SEED", "0"))


def test_energies_forces_and_virials(deepmd_script: Callable[..., None], tmp_path: Path) -> None:
    deepmd_script(MAKER, tmp_path, FIRST, NUMBER, folder=tmp_path)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) > 0.6 * NUMBER, "deepmd-kit refuses too many of the options"
    wrong = [problem for file in files for problem in compare(file)]
    assert not wrong, "\n".join(wrong)


def compare(file: Path) -> list[str]:
    """What differs between deepmd-kit's numbers and ours for one model."""
    calculator = DPA2Calculator(file.with_suffix(".pt"), dtype="float64", device="cpu")
    wrong = []
    with np.load(file) as theirs:
        for name in sorted({key.split("/")[0] for key in theirs.files}):
            cell = theirs[f"{name}/cell"]
            atoms = Atoms(
                list(theirs[f"{name}/symbols"]), theirs[f"{name}/positions"], cell=cell, pbc=cell.any()
            )
            (ours,) = calculator.evaluate([atoms])
            energy, forces = float(theirs[f"{name}/energy"]), theirs[f"{name}/forces"]
            size = max(1.0, float(np.abs(forces).max()))
            errors = [
                abs(ours["energy"] - energy) / max(1.0, abs(energy)),
                np.abs(ours["forces"] - forces).max() / size,
            ]
            if cell.any():
                virial = theirs[f"{name}/virial"]
                tensor = -atoms.get_volume() * _full(ours["stress"])
                errors.append(np.abs(tensor - (virial + virial.T) / 2).max() / size)
            if not max(errors) < 1e-8:
                wrong.append(f"{file.stem}, structure {name}: {errors}")
    return wrong


def _full(voigt: np.ndarray) -> np.ndarray:
    return voigt[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
