"""Slabs, 2-D crystals and wires: relaxation and constant pressure in the periodic directions alone."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import read
from emt_cases import with_emt
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from dpa2calc.applications import relax, run_md
from dpa2calc.applications.molecules.vibrations import vibrations
from dpa2calc.dynamics.strain import filling, strain_basis
from dpa2calc.errors import ConfigError, StructureError


def slab(vacuum=6.0, stretch=(1.03, 0.98), layers=1):
    """Cu(100), strained in the plane."""
    atoms = fcc100("Cu", (1, 1, layers), a=3.6, vacuum=vacuum)
    atoms.pbc = (True, True, False)
    atoms.set_cell(atoms.cell.array * [[stretch[0]], [stretch[1]], [1.0]], scale_atoms=True)
    atoms.calc = EMT()
    return atoms


def wire():
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [2.4, 0, 0]], cell=[4.8, 12, 12], pbc=[True, False, False])
    atoms.center()
    atoms.calc = EMT()
    return atoms


def best_length(make):
    """Length at the lowest energy, by a search in one dimension."""

    def energy(length):
        atoms = with_emt(make(length))
        return atoms.get_potential_energy()

    return minimize_scalar(energy, bounds=(2.0, 3.0), method="bounded", options={"xatol": 1e-6}).x


def monolayer(length):
    return Atoms("Cu", positions=[[0, 0, 6]], cell=[length, length, 12], pbc=[True, True, False])


@pytest.mark.parametrize("freedom", ["axes", "cell"])
@pytest.mark.parametrize("vacuum", [6.0, 12.0])
def test_monolayer_finds_its_lattice_constant_whatever_the_vacuum(freedom, vacuum):
    atoms = slab(vacuum)
    result = relax(atoms, relax=freedom, fmax=1e-3, smax_gpa=1e-3, progress=False)
    assert result.converged
    np.testing.assert_allclose(np.linalg.norm(result.cell[:2], axis=1), best_length(monolayer), atol=2e-3)
    np.testing.assert_allclose(result.cell[2], atoms.cell[2], atol=1e-9)
    assert "area " in result.summary() and "volume" not in result.summary()


def test_volume_keeps_the_shape_and_shape_keeps_the_area():
    atoms = slab()
    area, ratio = atoms.cell[0, 0] * atoms.cell[1, 1], atoms.cell[0, 0] / atoms.cell[1, 1]
    result = relax(atoms, relax="volume", progress=False)
    assert result.cell[0, 0] / result.cell[1, 1] == pytest.approx(ratio)
    assert result.cell[0, 0] * result.cell[1, 1] != pytest.approx(area, rel=1e-3)
    result = relax(atoms, relax="shape", progress=False)
    assert result.cell[0, 0] * result.cell[1, 1] == pytest.approx(area, rel=1e-6)
    assert result.cell[0, 0] == pytest.approx(result.cell[1, 1], rel=1e-3)


def test_direction_of_the_vacuum_makes_no_difference():
    """Turned anyhow, and with the vacuum along another cell vector."""
    plain = relax(slab(), relax="cell", progress=False)
    turned = slab()
    rotation = Rotation.from_rotvec([0.3, -0.7, 0.5]).as_matrix()
    turned.set_cell(turned.cell.array @ rotation.T, scale_atoms=True)
    result = relax(turned, relax="cell", progress=False)
    assert result.energy == pytest.approx(plain.energy, abs=1e-5)
    np.testing.assert_allclose(result.cell @ result.cell.T, plain.cell @ plain.cell.T, atol=2e-3)
    order = [2, 0, 1]
    other = Atoms("Cu", positions=[[6, 0, 0]], cell=np.diag(slab().cell.lengths()[order]))
    other.pbc, other.calc = [False, True, True], EMT()
    result = relax(other, relax="axes", progress=False)
    assert result.energy == pytest.approx(plain.energy, abs=1e-4)
    with pytest.raises(ConfigError, match="do not span such directions"):
        relax(turned, relax="axes", progress=False)


def test_wire_changes_its_length():
    result = relax(wire(), relax="cell", progress=False)
    exact = best_length(lambda a: Atoms("Cu", cell=[a, 12, 12], pbc=[True, False, False]))
    assert result.cell[0, 0] == pytest.approx(2 * exact, abs=5e-3)
    assert result.cell[1, 1] == 12 and "length " in result.summary()
    with pytest.raises(ConfigError, match="a wire has a length and no shape"):
        relax(wire(), relax="shape", progress=False)


def test_stress_is_that_of_the_slab_and_not_of_the_vacuum():
    limits = [relax(slab(v), relax="cell", max_steps=1, fmax=1, smax_gpa=99, progress=False) for v in (6, 20)]
    assert limits[0].stress_deviation[0] == pytest.approx(limits[1].stress_deviation[0], rel=1e-6)
    atoms = slab(10.0)
    assert filling(atoms) == pytest.approx(3.0 / 20.0)
    assert filling(bulk("Cu")) == 1.0


def test_trajectory_resumes_and_constraint_stays_inside(tmp_path):
    first = relax(slab(), relax="cell", trajectory=tmp_path / "a.traj", progress=False)
    assert all(not frame.constraints for frame in read(tmp_path / "a.traj", ":"))
    again = relax(slab(), relax="cell", trajectory=tmp_path / "a.traj", progress=False)
    assert again.energy == pytest.approx(first.energy) and not again.atoms().constraints


@pytest.mark.parametrize("freedom", ["volume", "axes", "shape", "cell"])
@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, True), (True, False, True)])
def test_strains_are_orthonormal_and_inside(freedom, pbc):
    atoms = bulk("Cu", cubic=True)
    atoms.pbc = pbc
    basis = strain_basis(atoms, freedom)
    np.testing.assert_allclose(np.einsum("kij,lij->kl", basis, basis), np.eye(len(basis)), atol=1e-12)
    held = ~np.array(pbc)
    assert np.abs(basis[:, held, :]).sum() == 0
    n = sum(pbc)
    assert len(basis) == {"volume": 1, "axes": n, "cell": n * (n + 1) // 2}.get(freedom, len(basis))


@pytest.mark.parametrize("motion", ["volume", "axes", "cell"])
@pytest.mark.parametrize("kind", ["slab", "wire"])
def test_constant_pressure_scales_the_periodic_axes_only(motion, kind, tmp_path):
    atoms = with_emt(slab(layers=2).repeat((3, 3, 1)) if kind == "slab" else wire().repeat((4, 1, 1)))
    options = {
        "ensemble": "npt", "temperature": 50, "timestep_fs": 1.0, "cell_motion": motion,
        "barostat_time_fs": 300.0, "progress": False, "log_interval": 1, "lost_distance": None,
    }  # fmt: skip
    result = run_md(atoms, steps=40, restart=tmp_path / "a.npz", **options)
    assert result.status == "finished"
    change = result.cell / np.where(atoms.cell.array, atoms.cell.array, 1.0)
    periodic = atoms.pbc
    assert np.all(np.abs(np.diag(change)[periodic] - 1) > 1e-4)
    np.testing.assert_array_equal(np.diag(change)[~periodic], 1.0)
    if motion == "volume":
        assert np.ptp(np.diag(change)[periodic]) < 1e-12
    assert np.ptp(result.conserved_energy) < 0.05 * np.ptp(result.potential_energy)
    whole = run_md(atoms, steps=60, **options)
    rest = run_md(atoms, steps=60, restart=tmp_path / "a.npz", **options)
    np.testing.assert_array_equal(rest.cell, whole.cell)  # also where axes in the plane are a choice


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ConfigError, match=r"a pressure of 2 GPa with pbc .* has no meaning.*use 0"):
        relax(slab(), relax="cell", pressure_gpa=2.0, progress=False)
    with pytest.raises(ConfigError, match="a pressure of -3 GPa"):
        run_md(slab(), steps=1, ensemble="npt", pressure_gpa=(0.0, -3.0), progress=False)
    flat = slab()
    flat.cell[2] = 0
    for call in (
        lambda: relax(flat, relax="cell", progress=False),
        lambda: run_md(flat, steps=1, ensemble="npt", progress=False),
    ):
        with pytest.raises(
            StructureError, match=r"needs three cell vectors.*atoms\.center\(vacuum=8, axis=2\)"
        ):
            call()
    box = molecule("H2O", vacuum=5)
    box.pbc, box.calc = True, EMT()
    with pytest.raises(StructureError, match=r"set atoms\.pbc = False for a molecule in a box"):
        vibrations(box, progress=False)


def test_slab_of_several_layers_relaxes_atoms_and_plane():
    atoms = with_emt(fcc111("Cu", (1, 1, 4), a=3.7, vacuum=7))
    result = relax(atoms, relax="cell", fmax=0.005, smax_gpa=0.01, progress=False)
    left = with_emt(result.atoms())
    stress = left.get_stress() / filling(left) / units.GPa
    assert np.abs(stress[[0, 1, 5]]).max() < 0.01 and result.converged
    assert result.cell[0, 0] < atoms.cell[0, 0] - 0.02
