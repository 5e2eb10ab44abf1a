"""Temperature scans: a toy ferroelectric, the heat capacity of a crystal, the finding of steps."""

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import all_changes
from slopes import slope, unit

from dpa2calc.applications import PhaseTransition, find_cages, perovskite, phase_transition
from dpa2calc.applications.transitions.step import find_step
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.lock import locked

A0 = 4.0


def toy_ferroelectric(springs_class, n=3, coupling=4.0):
    """A perovskite of springs whose B ions are drawn along z by the mean of all others.

    E = springs + sum_i (-a z_i^2 + b z_i^4 + c (x_i^2 + y_i^2)) - (J N / 2) (mean z)^2, (x, y, z)_i off
    the centre of cage i.
    """
    ideal = perovskite("Pb", "Ti", repeats=(n, n, n), lattice_constant=A0)
    cages = find_cages(ideal, "Ti", "O", 6)

    class Toy(springs_class):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            u = cages.displacements(self.atoms)  # (n, 3)
            z, mean = u[:, 2], u[:, 2].mean()
            a, b, c = 0.5, 20.0, 3.0
            energy = -a * z**2 + b * z**4 + c * (u[:, 0] ** 2 + u[:, 1] ** 2)
            energy = float(energy.sum()) - 0.5 * coupling * len(u) * mean**2
            slope = 2 * c * u  # dE/du_i
            slope[:, 2] = -2 * a * z + 4 * b * z**3 - coupling * mean
            forces = self.results["forces"]
            forces[cages.centres] -= slope
            for k in range(6):
                np.add.at(forces, cages.members[:, k], slope / 6)
            stress = slope.T @ u / self.atoms.get_volume()
            stress = 0.5 * (stress + stress.T)
            self.results["energy"] += energy
            self.results["free_energy"] += energy
            self.results["stress"] = self.results["stress"] + stress.flat[[0, 4, 8, 5, 2, 1]]

    atoms = ideal.copy()
    atoms.positions[cages.centres, 2] += 0.14
    atoms.calc = Toy(ideal, constant=1.5, radius=2.9, rest="each")
    return atoms


def test_toy_calculator_is_consistent(springs_class):
    atoms = toy_ferroelectric(springs_class, n=2)
    atoms.rattle(0.05, seed=1)
    energy, forces = atoms.calc.get_potential_energy, atoms.get_forces()
    stress = atoms.get_stress(voigt=False)
    for index, axis in ((8, 2), (20, 0)):
        expected = -slope(energy, atoms, move=unit(atoms, index, axis), step=1e-5)
        assert forces[index, axis] == pytest.approx(expected, abs=1e-6)
    # the toy favours z, so that its shear stress is not symmetric
    expected = slope(energy, atoms, strain=np.diag([0.0, 0.0, 1.0]), step=1e-5) / atoms.get_volume()
    assert stress[2, 2] == pytest.approx(expected, abs=1e-6)


def scan_of(springs_class, n, temperatures, folder=None, **options):
    settings = {"picoseconds": 1.4, "timestep_fs": 4.0, "sample_interval": 5, "thermostat_time_fs": 60}
    settings |= {"barostat_time_fs": 400, "repeats": (n, n, n), "centre": "Ti", "progress": False, **options}
    return phase_transition(toy_ferroelectric(springs_class, n=n), temperatures, folder=folder, **settings)


@pytest.fixture(scope="module")
def scan(springs_class, tmp_path_factory):
    return scan_of(springs_class, 3, (100, 250, 400, 550, 700, 900), tmp_path_factory.mktemp("scan"))


def mean_field_temperature(coupling=4.0, a=0.5, b=20.0, springs=1.5):
    """Where J <z^2> = kT for one ion in (springs - a) z^2 + b z^4: exact for cages that share no oxygen."""
    z = np.linspace(-0.6, 0.6, 4001)
    potential = (springs - a) * z**2 + b * z**4
    temperatures = np.arange(100, 1500, 1.0)
    kt = units.kB * temperatures[:, None]
    weight = np.exp(-potential / kt)  # (n_temperatures, 4001)
    square = (weight * z**2).sum(axis=1) / weight.sum(axis=1)
    return float(temperatures[np.argmin(np.abs(coupling * square / kt[:, 0] - 1))])


def test_a_ferroelectric_loses_and_regains_its_polarisation(scan):
    up = scan.on("heating")
    assert scan.order[up][0, 0] > 2 * scan.order[up][-1, 0]
    assert scan.direction[0] == "[0 0 1]"
    assert np.argmax(np.abs(scan.displacement[0, :, 0])) == 2
    assert np.all(scan.local[:, 0] > scan.polar[:, 0])
    hot = int(np.flatnonzero(up)[-1])
    assert scan.local[hot, 0] > 3 * scan.polar[hot, 0]  # off centre one by one, but not together
    expected = mean_field_temperature()
    whole = scan.transition()
    assert abs(whole.temperature - expected) < 3 * whole.error + 60  # 27 cells smear it
    assert np.allclose(scan.temperature[:, 0], scan.target, rtol=0.1)
    assert np.allclose(scan.lengths[:, :, 0], A0, atol=0.1)
    assert np.nanmean(scan.heat_capacity[:, 0]) == pytest.approx(3.0, abs=0.3)


@pytest.mark.slow
def test_transition_temperature_agrees_with_mean_field_theory(springs_class):
    found = scan_of(springs_class, 4, (100, 200, 300, 400, 450, 500, 550, 600, 700, 800), picoseconds=4.0)
    expected = mean_field_temperature()
    for step in found.steps.values():
        assert step["reason"] == "" and step["temperature"] == pytest.approx(expected, rel=0.25)
    gap, error = found.hysteresis()
    assert abs(gap) < 3 * error


def test_scan_is_kept_drawn_and_resumed(scan, tmp_path):
    import matplotlib.figure

    again = PhaseTransition.load(scan.save(tmp_path / "scan.npz"))
    assert np.array_equal(again.order, scan.order)
    assert again.steps["heating"] == scan.steps["heating"]
    text = again.summary()
    for part in (
        "temperature scan of O81Pb27Ti27 (135 atoms) at 0 GPa",
        "step on heating",
        "hysteresis",
        "[0 0 1]",
    ):
        assert part in text
    figure = matplotlib.figure.Figure()
    for number, name in enumerate(("plot", "plot_lattice", "plot_heat_capacity")):
        axes = figure.add_subplot(3, 1, number + 1)
        assert getattr(scan, name)(axes) is axes


def test_stopped_scan_goes_on_to_the_same_numbers(springs_class, tmp_path):
    options = {
        "picoseconds": 0.2,
        "timestep_fs": 4.0,
        "sample_interval": 1,
        "cooling": False,
        "progress": False,
    }
    temperatures = (100, 150, 200, 250, 300)
    atoms = toy_ferroelectric(springs_class, n=2)
    first = phase_transition(atoms, temperatures, folder=tmp_path, **options)
    for path in tmp_path.glob("004-*"):
        path.unlink()
    second = phase_transition(toy_ferroelectric(springs_class, n=2), temperatures, folder=tmp_path, **options)
    assert np.array_equal(first.enthalpy, second.enthalpy)
    assert first.order_name == "tetragonal strain |c/a - 1|"
    assert np.isnan(second.polar).all() and second.direction == ("",) * 5


def test_heat_capacity_of_a_harmonic_crystal_is_three_k_per_atom(spring_crystal):
    """3N-3 momenta and 3N-3 positions and the volume: (3 - 3/N) k per atom and a little for the cell."""
    result = phase_transition(
        spring_crystal(), (100, 200, 300, 400, 500), picoseconds=3.0, timestep_fs=6.0, cooling=False,
        thermostat_time_fs=60, barostat_time_fs=300, cell_motion="volume", sample_interval=5,
        progress=False,
    )  # fmt: skip
    slope = np.polyfit(result.target, result.enthalpy[:, 0], 1)[0] / units.kB
    assert slope == pytest.approx(3.0, abs=0.3)
    assert np.mean(result.heat_capacity_fluctuation) == pytest.approx(3.0, rel=0.4)
    assert np.all(np.abs(result.tetragonality[:, 0] - 1) < 1e-9)  # isotropic cells stay cubes
    assert "no step between 100 and 500 K" in result.steps["heating"]["reason"]
    assert np.isnan(result.transition().temperature)


def test_step_of_a_jump_is_in_its_interval():
    x = np.arange(300.0, 1000.0, 50.0)
    y = np.where(x < 720, 0.3 - 1e-4 * (x - 300), 0.02)
    step = find_step(x, y, np.full(len(x), 0.004))
    assert 700 < step.temperature < 750
    assert step.error == pytest.approx(50 / np.sqrt(12), rel=0.1)


def test_step_of_a_continuous_transition_is_near_its_critical_temperature():
    x = np.arange(300.0, 900.0, 25.0)
    y = np.where(x < 700, np.sqrt(np.clip(1 - x / 700, 0, None)), 0.0)
    step = find_step(x, y + 0.02, np.full(len(x), 0.01))
    assert abs(step.temperature - 700) < 2 * step.error + 12


def test_step_errors_cover_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        truth = rng.uniform(500, 700)
        x = np.arange(300.0, 900.0, 40.0)
        y = 0.3 / (1 + np.exp((x - truth) / 25)) + rng.normal(0, 0.01, len(x))
        step = find_step(x, y, np.full(len(x), 0.01), seed=trial)
        inside += abs(step.temperature - truth) < 2 * step.error
    assert inside >= 54


def test_noise_and_thermal_expansion_are_no_step():
    rng = np.random.default_rng(1)
    x = np.arange(300.0, 900.0, 40.0)
    flat = find_step(x, 0.01 + rng.normal(0, 0.003, len(x)), np.full(len(x), 0.003))
    assert "no step between 300 and 860 K: the order parameter goes from" in flat.reason
    slope = find_step(x, 0.05 - 2e-5 * x, np.full(len(x), 1e-4))
    assert np.isnan(slope.temperature)


def test_errors_say_what_to_do(springs_class, copper):
    atoms = toy_ferroelectric(springs_class, n=2)
    for temperatures, options, text in [
        ((300, 400), {}, r"temperatures is \[300.0, 400.0\]; give at least five, increasing"),
        ((1, 3, 2, 4, 5), {}, "give at least five, increasing"),
        (range(1, 7), {"equilibration": 0.95}, "equilibration is 0.95; it is a fraction of each stage"),
        (range(1, 7), {"picoseconds": 0}, "picoseconds must be a positive number, got 0"),
        (range(1, 7), {"repeats": (0, 1, 1)}, r"repeats is \(0, 1, 1\); give three whole numbers"),
        (range(100, 700, 100), {"picoseconds": 0.01}, "only 1 frames are left of the stage at 100 K"),
    ]:
        with pytest.raises(ConfigError, match=text):
            phase_transition(atoms, temperatures, progress=False, **options)
    with pytest.raises(StructureError, match="reference has other atoms"):
        other = perovskite("Pb", "Ti", repeats=(1, 1, 1))
        phase_transition(atoms, range(1, 7), centre="Ti", reference=other, progress=False)


def short_scan(atoms, folder, temperatures=(100, 120, 140, 160, 180), **changes):
    options = {"picoseconds": 0.1, "timestep_fs": 2.0, "sample_interval": 1, "cooling": False, **changes}
    return phase_transition(atoms, temperatures, folder=folder, progress=False, **options)


def test_a_folder_belongs_to_one_structure_calculator_and_set_of_options(spring_crystal, tmp_path):
    first = short_scan(spring_crystal(), tmp_path)
    more = short_scan(spring_crystal(), tmp_path, (100, 120, 140, 160, 180, 200))
    assert np.array_equal(more.volume[:5], first.volume)
    other = spring_crystal()
    other.positions[0] += 0.05
    with pytest.raises(ConfigError, match="belongs to other work; different are structure: positions"):
        short_scan(other, tmp_path)
    with pytest.raises(ConfigError, match=r"options: pressure gpa|options: pressure_gpa \(0\.0 -> 1\.0\)"):
        short_scan(spring_crystal(), tmp_path, pressure_gpa=1.0)
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing to"):
        short_scan(spring_crystal(), tmp_path)
    # a folder of an earlier version has no identity of its own, but each stage has its structure
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ConfigError, match=r"000-heating-100K\.npz belongs to other work"):
        short_scan(other, tmp_path)
    assert np.array_equal(short_scan(spring_crystal(), tmp_path).volume, first.volume)
