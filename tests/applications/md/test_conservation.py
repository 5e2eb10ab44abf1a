"""Energy conservation: order dt², drift where forces are no gradient, the estimator itself."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from dpa2calc.applications import EnergyConservation, TurnedForces, energy_conservation
from dpa2calc.applications.md.conservation_result import energy_drift
from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.files.lock import locked


@pytest.fixture(scope="module")
def measured(soft_spheres, tmp_path_factory):
    atoms = soft_spheres()
    return energy_conservation(
        atoms,
        (2.0, 4.0, 8.0),
        duration_fs=2000,
        temperature=200,
        compare={"turned": TurnedForces(atoms.calc, degrees=10)},
        folder=tmp_path_factory.mktemp("work"),
        progress=False,
    )


def test_fluctuation_falls_as_dt_squared_and_only_turned_forces_drift(measured):
    assert measured.order[0] == pytest.approx(2, abs=0.25)
    assert np.all(np.abs(measured.drift[0]) < 4 * measured.drift_error[0] + 0.02 * measured.fluctuation[0])
    assert np.all(np.abs(measured.drift[1]) > 10 * np.abs(measured.drift[0]))
    # the drift of a force error does not go away with the time step
    assert measured.order[1] < 1
    text = measured.summary()
    assert "turned: fluctuation falls as dt^" in text and "12 atoms, NVE" in text


def test_result_is_kept_and_drawn(measured, tmp_path):
    import matplotlib.figure

    again = EnergyConservation.load(measured.save(tmp_path / "conservation.npz"))
    assert np.array_equal(again.drift, measured.drift) and again.labels == ("conservative", "turned")
    assert np.array_equal(again.energies[1][2], measured.energies[1][2])
    figure = matplotlib.figure.Figure()
    axes = measured.plot(figure.add_subplot(121))
    assert axes.get_xscale() == "log"
    lines = measured.plot_energy(4.0, figure.add_subplot(122)).get_lines()
    assert len(lines) == 2 and lines[0].get_xdata()[-1] == pytest.approx(2.0)


def test_a_second_call_reads_the_finished_runs(soft_spheres, tmp_path):
    options = {"duration_fs": 800, "equilibration_fs": 40, "folder": tmp_path, "progress": False}
    first = energy_conservation(soft_spheres(), (2.0, 4.0), **options)
    atoms = soft_spheres()
    second = energy_conservation(atoms, (2.0, 4.0), **options)
    assert np.array_equal(first.drift, second.drift)


def test_estimator_recovers_a_known_slope():
    rng = np.random.default_rng(0)
    time = np.arange(4000.0)
    energies = 5.0 + 2e-5 * time + rng.normal(0, 0.004, len(time))  # 20 meV/ps, 10 atoms
    drift, error, rms = energy_drift(time, energies, 10)
    assert drift == pytest.approx(2.0, abs=4 * error) and error < 0.05
    assert rms == pytest.approx(0.4, rel=0.05)
    slopes = [energy_drift(time, rng.normal(0, 0.004, len(time)), 10) for _ in range(300)]
    inside = np.mean([abs(slope) < 2 * error for slope, error, _ in slopes])
    assert 0.88 < inside < 0.98
    assert np.isnan(energy_drift(time[:5], energies[:5], 10)).all()


def test_turned_forces_have_the_same_size_and_do_work_around_a_loop(soft_spheres):
    atoms = soft_spheres()
    forces = atoms.get_forces()
    turned = atoms.copy()
    turned.calc = TurnedForces(atoms.calc, degrees=30)
    assert np.allclose(np.linalg.norm(turned.get_forces(), axis=1), np.linalg.norm(forces, axis=1))
    assert turned.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    assert np.allclose(turned.get_forces()[:, 2], forces[:, 2])
    work = {}
    for name, system in (("plain", atoms.copy()), ("turned", turned)):
        system.calc = (
            soft_spheres().calc if name == "plain" else TurnedForces(soft_spheres().calc, degrees=30)
        )
        centre, total = system.positions[0].copy(), 0.0
        angles = np.linspace(0, 2 * np.pi, 401)
        for one, two in zip(angles[:-1], angles[1:]):
            system.positions[0] = centre + 0.5 * np.array(
                [np.cos((one + two) / 2), np.sin((one + two) / 2), 0]
            )
            path = 0.5 * np.array([np.cos(two) - np.cos(one), np.sin(two) - np.sin(one), 0])
            total += float(system.get_forces()[0] @ path)
        work[name] = total
    assert abs(work["plain"]) < 1e-4 and abs(work["turned"]) > 1e-2


def test_errors_say_what_to_do(soft_spheres):
    atoms = soft_spheres()
    for options, text in [
        (
            {"timesteps_fs": (1.0, 1.0)},
            r"timesteps_fs is \[1.0, 1.0\]; give at least two different",
        ),
        ({"timesteps_fs": (1.0, -1.0)}, "timesteps_fs must be a positive number, got -1.0"),
        ({"duration_fs": 50}, "duration_fs is 50, only 25 steps of 2 fs; give at least 200"),
        ({"duration_fs": 1e300}, r"duration_fs is 1e\+300 .* over 1e\+12 steps of 0.25 fs"),
        ({"equilibration_fs": 1e13}, r"equilibration_fs 1e\+13, over 1e\+12 steps of 0.25 fs"),
        ({"equilibration_fs": -5}, "equilibration_fs is -5; it must be 0 or more"),
        ({"compare": {"conservative": atoms.calc}}, "compare holds the label 'conservative' of the"),
        ({"compare": {"turned": 1}}, r"compare\['turned'\] is 1, not a calculator; give one for each label"),
    ]:
        with pytest.raises(ConfigError, match=text):
            energy_conservation(atoms, progress=False, **options)


def test_an_atom_alone_has_no_order():
    atoms = Atoms("Cu", calculator=EMT())
    result = energy_conservation(
        atoms, (1.0, 2.0), duration_fs=200, equilibration_fs=0, label="alone", progress=False
    )
    assert "alone: fluctuation has no order in dt" in result.summary()
    assert "nan" not in result.summary()


@pytest.mark.filterwarnings("ignore:molecular dynamics stopped")
def test_a_start_that_a_guard_stopped_is_no_start(soft_spheres):
    options = {"duration_fs": 40000.0, "temperature": 3000.0, "progress": False}
    with pytest.raises(StructureError, match="common start stopped: step 1: "):
        energy_conservation(soft_spheres(), (200.0, 400.0), **options)


def short(atoms, folder, **changes):
    options = {"duration_fs": 200, "equilibration_fs": 20, "progress": False, **changes}
    return energy_conservation(atoms, (1.0, 2.0), folder=folder, **options)


def test_a_folder_belongs_to_one_structure_calculator_and_set_of_options(copper, tmp_path):
    first = short(copper(), tmp_path)
    again = short(copper(), tmp_path)
    assert np.array_equal(first.drift, again.drift, equal_nan=True)
    other = copper()
    other.positions[0] += 0.05
    with pytest.raises(ConfigError, match=r"belongs to other work; different are structure: positions"):
        short(other, tmp_path)
    with pytest.raises(ConfigError, match=r"options: temperature \(300\.0 -> 400\.0\)"):
        short(copper(), tmp_path, temperature=400)
    heavier = copper()
    heavier.calc = TurnedForces(heavier.calc, 1.0)
    with pytest.raises(ConfigError, match=r'calculator: class \("EMT" -> "TurnedForces"\)'):
        short(heavier, tmp_path)
    short(copper(), tmp_path, compare={"turned": TurnedForces(copper().calc, 1.0)})
    with pytest.raises(ConfigError, match=r"turned-1fs\.npz belongs to other .*degrees \(1\.0 -> 2\.0\)"):
        short(copper(), tmp_path, compare={"turned": TurnedForces(copper().calc, 2.0)})
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing to"):
        short(copper(), tmp_path)
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(DataError, match=r"identity\.json is damaged"):
        short(copper(), tmp_path)


def test_a_folder_of_an_earlier_version_has_no_label_and_gets_one_from_the_call_that_resumes_it(
    copper, tmp_path
):
    first = short(copper(), tmp_path)
    label = tmp_path / "identity.json"
    before = label.read_bytes()
    label.unlink()
    other = copper()
    other.positions[0] += 0.05
    with pytest.raises(ConfigError, match=r"equilibration\.npz belongs to other work"):
        short(other, tmp_path)
    assert not label.exists()
    again = short(copper(), tmp_path)
    assert np.array_equal(first.drift, again.drift, equal_nan=True) and label.read_bytes() == before


def test_labels_that_would_share_files_are_refused(copper):
    with pytest.raises(ConfigError, match="two runs would write the same files"):
        short(copper(), None, compare={"a b": copper().calc, "a-b": copper().calc})
