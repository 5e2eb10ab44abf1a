"""Molecular dynamics: conservation, canonical and isobaric statistics, ramps, files."""

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms
from ase.io import read
from emt_cases import with_emt

from dpa2calc.applications import MDConfig, MDResult, run_md
from dpa2calc.errors import ConfigError, DataError, StructureError

THERMOSTATS = ["langevin", "bussi", "nose-hoover"]


def quiet(atoms, **options):
    """Without looking for neighbours, which takes half the time of such small systems."""
    return run_md(atoms, progress=False, **{"min_distance": None, "lost_distance": None, **options})


def test_nve_energy_error_falls_as_the_square_of_the_time_step(soft_spheres):
    atoms = soft_spheres()
    atoms = quiet(atoms, steps=300, timestep_fs=4, temperature=200, sync_interval=0).final_atoms()
    atoms.calc = soft_spheres().calc
    errors = []
    for timestep in (2.0, 4.0, 8.0):
        result = quiet(
            atoms, steps=int(1600 / timestep), timestep_fs=timestep, ensemble="nve", log_interval=1
        )
        errors.append(float(np.std(result.total_energy)))
    # velocity Verlet conserves a shadow energy that differs by order dt^2
    assert errors[1] / errors[0] == pytest.approx(4, rel=0.1)
    assert errors[2] / errors[1] == pytest.approx(4, rel=0.15)
    assert np.array_equal(result.conserved_energy, result.total_energy)


@pytest.mark.parametrize(
    ("thermostat", "fix_com"),
    [("langevin", True), ("langevin", False), ("bussi", True), ("nose-hoover", True)],
)
def test_kinetic_energy_is_canonical(soft_spheres, thermostat, fix_com):
    """<K> = n kT/2 and var K = n (kT)^2/2; 12 atoms show a wrong count of n by 9 percent."""
    options = {"thermostat": thermostat, "thermostat_time_fs": 30, "fix_com": fix_com, "seed": 4}
    result = quiet(soft_spheres(), steps=5000, timestep_fs=6, temperature=200, log_interval=2, **options)
    kt = units.kB * 200
    n_dof = 36 - 3 * fix_com
    kinetic = result.kinetic_energy[200:]
    assert np.mean(kinetic) == pytest.approx(0.5 * n_dof * kt, rel=0.04)
    assert np.var(kinetic) == pytest.approx(0.5 * n_dof * kt**2, rel=0.25)
    mean, error = result.average("temperature", 1200.0)
    assert abs(mean - 200) < 4 * error + 1.0
    momentum = result.momenta.sum(axis=0)
    assert (np.abs(momentum).max() < 1e-9) == fix_com


def test_thermostats_conserve_their_quantity(soft_spheres):
    for thermostat in ("bussi", "nose-hoover"):
        result = quiet(soft_spheres(), steps=2000, timestep_fs=3, temperature=200, thermostat=thermostat)
        spread = np.std(result.conserved_energy)
        assert spread < 0.02 * np.std(result.total_energy)


def test_ideal_gas_under_npt_has_the_exact_volume_distribution(ideal_gas):
    """Weight V^(N-1) exp(-PV/kT) with the centre of mass at rest: <V> = N kT/P, sd V = sqrt(N) kT/P."""
    n_atoms, pressure_gpa, temperature = 4, 0.01, 300.0
    scale = units.kB * temperature / (pressure_gpa * units.GPa)
    atoms = ideal_gas(n_atoms)
    atoms.set_cell([(n_atoms * scale) ** (1 / 3)] * 3, scale_atoms=True)
    limits = {"lost_distance": None, "volume_limit": None, "step_limit": None}
    result = quiet(
        atoms, steps=5000, timestep_fs=15, ensemble="npt", pressure_gpa=pressure_gpa, temperature=temperature,
        thermostat_time_fs=60, barostat_time_fs=150, seed=2, log_interval=5, **limits,
    )  # fmt: skip
    volume = result.volume[100:]
    assert np.mean(volume) == pytest.approx(n_atoms * scale, rel=0.1)
    assert np.std(volume) == pytest.approx(np.sqrt(n_atoms) * scale, rel=0.2)


def test_npt_volume_agrees_with_the_pressure_at_constant_volume(soft_spheres):
    target = 1.0  # GPa
    options = {"steps": 2500, "timestep_fs": 6, "temperature": 150, "thermostat_time_fs": 80, "seed": 1}
    npt = quiet(soft_spheres(), ensemble="npt", pressure_gpa=target, barostat_time_fs=300, **options)
    pressure, error = npt.average("pressure", 4000)
    assert pressure / units.GPa == pytest.approx(target, abs=4 * error / units.GPa + 0.01)
    fixed = npt.final_atoms()
    assert np.ptp(fixed.cell.lengths()) < 1e-9 and np.allclose(fixed.cell.angles(), 90)
    ratio = npt.average("volume", 4000)[0] / fixed.get_volume()
    fixed.set_cell(fixed.cell * ratio ** (1 / 3), scale_atoms=True)  # the mean volume, now at rest
    fixed.calc = soft_spheres().calc
    pressure, error = quiet(fixed, thermostat="bussi", **options).average("pressure", 4000)
    assert pressure / units.GPa == pytest.approx(target, abs=3 * error / units.GPa + 0.03)


@pytest.mark.parametrize("cell_motion", ["volume", "axes", "cell"])
def test_cell_of_a_crystal_fluctuates_as_its_bulk_modulus_says(spring_crystal, cell_motion):
    """var V = kT V / B about a cube near the static volume; shape free only as far as asked.

    The springs are nearly harmonic, so that a flexible cell shares its energy among its modes slowly:
    there only the order of magnitude is asked of this short run.
    """
    atoms = spring_crystal()
    static = atoms.get_volume()
    atoms.set_cell(atoms.cell * 1.005, scale_atoms=True)
    bulk_modulus = -float(atoms.get_stress()[:3].mean()) / (1 - 1.005**3)
    result = quiet(
        spring_crystal(), steps=2500, timestep_fs=6, temperature=600, ensemble="npt", cell_motion=cell_motion,
        thermostat_time_fs=60, barostat_time_fs=150, log_interval=5,
    )  # fmt: skip
    pressure, error = result.average("pressure", 2000)
    assert abs(pressure) / units.GPa < 4 * error / units.GPa + 0.05
    volume = result.volume[result.time_fs > 2000]
    assert np.mean(volume) == pytest.approx(static, rel=0.03)
    ratio = np.var(volume) / (units.kB * 600 * static / bulk_modulus)
    assert 0.6 < ratio < 1.6 if cell_motion == "volume" else 0.3 < ratio < 4
    cell = result.final_atoms().cell
    spread, off_cube = np.ptp(cell.lengths()), np.abs(cell.angles() - 90).max()
    assert (spread < 1e-9) == (cell_motion == "volume") and spread < 0.8
    assert (off_cube < 1e-9) == (cell_motion != "cell") and off_cube < 10
    assert np.std(result.conserved_energy[50:]) < 0.1 * np.std(result.potential_energy[50:])


@pytest.mark.parametrize("thermostat", THERMOSTATS)
def test_temperature_ramp_is_followed_and_then_held(soft_spheres, thermostat):
    result = quiet(
        soft_spheres(), steps=2500, ramp_steps=1200, timestep_fs=8, temperature=(100, 400), log_interval=5,
        thermostat=thermostat, thermostat_time_fs=60,
    )  # fmt: skip
    target = np.interp(result.step, [0, 1200], [100, 400])
    assert np.allclose(result.target_temperature, target)
    quarter = (result.step > 500) & (result.step < 700)
    assert np.mean(result.temperature[quarter]) == pytest.approx(250, rel=0.2)
    assert np.mean(result.temperature[result.step > 1250]) == pytest.approx(400, rel=0.12)
    assert np.isnan(result.conserved_energy).all()


def test_pressure_ramp_is_followed(soft_spheres):
    result = quiet(
        soft_spheres(), steps=2000, timestep_fs=6, temperature=150, ensemble="npt", pressure_gpa=(0.4, 1.5),
        barostat_time_fs=200, thermostat_time_fs=60, ramp_steps=1000,
    )  # fmt: skip
    late = result.step > 1100
    assert np.mean(result.pressure[late]) / units.GPa == pytest.approx(1.5, rel=0.1)
    assert result.volume[-1] < 0.9 * result.volume[0]


def test_velocities_come_from_the_seed_or_from_the_atoms(copper):
    first, again, other = (quiet(copper(), steps=0, temperature=500, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.momenta, again.momenta)
    assert not np.allclose(first.momenta, other.momenta)
    assert first.temperature[0] == pytest.approx(500)
    assert np.abs(first.momenta.sum(axis=0)).max() < 1e-12
    atoms = copper()
    atoms.set_momenta(first.momenta)
    kept = quiet(atoms, steps=0, temperature=100)
    assert np.allclose(kept.momenta, first.momenta)
    assert quiet(atoms, steps=0, temperature=100, velocities="new").temperature[0] == pytest.approx(100)


def test_fixed_atoms_stay_and_the_temperature_counts_only_the_free(copper):
    atoms = copper()
    atoms.set_constraint(FixAtoms([0, 1]))
    result = quiet(atoms, steps=20, timestep_fs=2, temperature=300, thermostat="bussi")
    assert np.array_equal(result.positions[:2], atoms.positions[:2])
    assert result.temperature[0] == pytest.approx(300)
    kinetic = result.kinetic_energy[0]
    assert kinetic == pytest.approx(0.5 * 18 * units.kB * 300)


def test_the_callers_atoms_are_never_changed(copper):
    atoms = copper()
    atoms.info["name"] = "mine"
    before = atoms.copy()
    quiet(atoms, steps=5, ensemble="npt", temperature=300)
    quiet(atoms, steps=5, thermostat="langevin")
    assert atoms == before and atoms.info == before.info
    assert not atoms.has("momenta") and not atoms.constraints


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
def test_trajectory_and_log_hold_the_run(copper, tmp_path, suffix):
    atoms = copper()
    path, log = tmp_path / f"run.{suffix}", tmp_path / "run.csv"
    result = quiet(atoms, steps=40, timestep_fs=2, trajectory=path, log=log, trajectory_interval=20)
    frames = read(path, ":")
    assert [frame.info["step"] for frame in frames] == [0, 20, 40]
    assert frames[2].info["time_fs"] == 80
    tolerance = 0 if suffix == "traj" else 2e-8
    assert np.allclose(frames[-1].positions, result.positions, rtol=0, atol=tolerance)
    assert np.allclose(frames[-1].get_momenta(), result.momenta, rtol=0, atol=tolerance)
    assert not frames[-1].constraints
    fresh = frames[-1].copy()
    fresh.calc = copper().calc
    assert np.allclose(frames[-1].get_forces(), fresh.get_forces(), atol=1e-6)
    assert frames[-1].get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-6)
    assert frames[-1].get_stress() == pytest.approx(fresh.get_stress(), abs=1e-6)
    table = np.genfromtxt(log, delimiter=",", names=True)
    assert np.array_equal(table["step"], [0, 10, 20, 30, 40])
    assert np.array_equal(table["potential_energy_eV"], result.potential_energy)
    assert np.allclose(table["pressure_GPa"] * units.GPa, result.pressure, rtol=1e-14)


def test_remarks_that_a_file_cannot_name_do_not_end_a_run(copper, tmp_path):
    atoms = copper()
    atoms.info.update({1: "one", ("a", 2): 3.0})
    quiet(atoms, steps=4, trajectory=tmp_path / "run.extxyz", trajectory_interval=2)
    assert read(tmp_path / "run.extxyz").info["1"] == "one"


def test_result_saves_loads_summarises_and_plots(copper, tmp_path):
    import matplotlib.figure

    result = quiet(copper(), steps=40, timestep_fs=2, temperature=300, seed=7)
    again = MDResult.load(result.save(tmp_path / "md.npz"))
    assert np.array_equal(again.temperature, result.temperature)
    assert again.config == result.config and again.provenance == result.provenance
    assert again.provenance["seed"] == 7 and again.provenance["calculator"] == "EMT"
    text = result.summary()
    for part in ("NVT", "8 atoms", "40 steps of 2 fs: finished", "ns/day", "temperature", "GPa"):
        assert part in text
    axes = matplotlib.figure.Figure().add_subplot()
    assert result.plot(axes) is axes
    assert "K" in axes.get_ylabel()


def test_molecule_without_a_cell_runs(copper):
    from ase.build import molecule

    atoms = with_emt(molecule("H2O"))
    result = quiet(atoms, steps=20, timestep_fs=0.2, temperature=200)
    assert np.isnan(result.pressure).all() and np.isnan(result.volume).all()
    assert "GPa" not in result.summary()


def test_wrong_options_say_what_is_allowed(copper):
    atoms = copper()
    for options, text in [
        ({}, r"give the total number of steps, for example run_md\(atoms, steps=2000\)"),
        (
            {"steps": 5, "tempreature": 3},
            "unknown option tempreature = 3; did you mean temperature",
        ),
        ({"steps": -1}, "steps is -1; it must be a whole number of at least 0"),
        ({"steps": 1.5}, "steps = 1.5 is not allowed; allowed: a whole number"),
        ({"steps": 5, "ensemble": "npH"}, "ensemble = 'npH' is not allowed; allowed: nve, nvt, npt"),
        ({"steps": 5, "temperature": 0}, "temperature is 0.0 K; it must be above 0 K"),
        (
            {"steps": 5, "temperature": (1, 2, 3)},
            r"temperature = \(1, 2, 3\) is not allowed; allowed: a finite number or a list of 2",
        ),
        (
            {"steps": 5, "temperature": float("nan")},
            "temperature = nan is not allowed; allowed: a finite number",
        ),
        ({"steps": 5, "timestep_fs": -1}, "timestep_fs is -1; it must be a number above 0 fs"),
        ({"steps": 5, "force_limit": 0}, "force_limit is 0; it must be a number above 0"),
        ({"steps": 5, "volume_limit": 0.5}, "volume_limit is 0.5; it is a ratio and must be above 1"),
        ({"steps": 5, "velocities": "keep"}, "velocities='keep', but all momenta are zero"),
        ({"steps": 5, "trajectory": "a.xtc"}, r"trajectory is 'a.xtc'; its name must end in .traj"),
    ]:
        with pytest.raises(ConfigError, match=text):
            quiet(atoms, **options)


def test_wrong_atoms_say_what_is_missing(copper):
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    class NoStress(Calculator):
        implemented_properties = ["energy", "forces"]

    atoms = copper()
    with pytest.raises(StructureError, match="there are no atoms to move"):
        quiet(Atoms(), steps=1)
    with pytest.raises(StructureError, match=r"no calculator; set atoms\.calc = DPA2Calculator"):
        quiet(atoms.copy(), steps=1)
    slab = copper()
    slab.pbc = False
    with pytest.raises(StructureError, match=r"NPT needs a crystal, .* or a slab or wire"):
        quiet(slab, steps=1, ensemble="npt")
    held = copper()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(
        ConfigError, match="NPT do not support constraints; use thermostat='langevin' or 'bussi'"
    ):
        quiet(held, steps=1, ensemble="npt")
    held.set_constraint(FixAtoms(range(8)))
    with pytest.raises(StructureError, match="the constraints leave 0 degrees of freedom"):
        quiet(held, steps=1)
    atoms.calc = NoStress()
    with pytest.raises(ConfigError, match="NPT needs stresses, which NoStress does not give; use NVT"):
        quiet(atoms, steps=1, ensemble="npt")
    with pytest.raises(ConfigError, match="fix_com=True leaves a single atom no motion; give fix_com=False"):
        quiet(_single(), steps=1, fix_com=True)


def _single():
    from ase import Atoms

    return with_emt(Atoms("Cu", cell=[9, 9, 9], pbc=True))


def test_existing_files_are_not_written_over(copper, tmp_path):
    path = tmp_path / "run.traj"
    quiet(copper(), steps=1, trajectory=path)
    with pytest.raises(DataError, match=r"run\.traj exists; give overwrite=True to replace it, another name"):
        quiet(copper(), steps=1, trajectory=path)
    quiet(copper(), steps=2, trajectory=path, trajectory_interval=1, overwrite=True)
    assert len(read(path, ":")) == 3


def test_config_can_be_shared_and_overridden(copper):
    config = MDConfig(steps=3, temperature=250, log_interval=1)
    assert quiet(copper(), config=config).n_steps == 3
    assert quiet(copper(), config=config, steps=5).n_steps == 5
