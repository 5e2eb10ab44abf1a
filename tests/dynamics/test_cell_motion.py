"""Which strains of a cell molecular dynamics lets move, whatever vectors describe the crystal."""

import numpy as np
import pytest
from ase.build import bulk
from emt_cases import with_emt

from dpa2calc.applications import run_md

NPT = {"ensemble": "npt", "temperature": 300, "barostat_time_fs": 100, "thermostat_time_fs": 50}


def moved(atoms, motion, **options):
    atoms = with_emt(atoms.copy())
    result = run_md(atoms, cell_motion=motion, progress=False, **{**NPT, "timestep_fs": 2.0, **options})
    return result, np.linalg.solve(atoms.cell.array, result.cell)


def hexagonal():
    atoms = bulk("Cu", "hcp", a=2.5, c=4.1) * (2, 1, 1)
    atoms.rattle(0.03, seed=0)
    return atoms


def test_axes_of_an_oblique_cell_are_the_lengths_along_x_y_and_z():
    result, deformation = moved(hexagonal(), "axes", steps=50, log_interval=5)
    stretch = deformation.diagonal()
    assert np.abs(deformation - np.diag(stretch)).max() < 1e-9
    assert np.ptp(stretch) > 1e-3  # they move apart
    assert np.ptp(result.conserved_energy) < 0.05 * np.ptp(result.potential_energy)
    same, again = moved(hexagonal(), "axes", steps=50, log_interval=5, sync_interval=0)
    assert again == pytest.approx(deformation, abs=1e-12) and same.n_steps == 50


@pytest.mark.parametrize("motion", ["volume", "axes", "cell"])
def test_left_handed_cells_move_as_right_handed_ones(motion):
    atoms = hexagonal()
    other = atoms.copy()
    other.set_cell(atoms.cell.array[[1, 0, 2]])
    first, second = (moved(each, motion, steps=20, log_interval=5)[0] for each in (atoms, other))
    assert second.volume == pytest.approx(first.volume, rel=1e-9)
    assert second.pressure == pytest.approx(first.pressure, abs=1e-9)
