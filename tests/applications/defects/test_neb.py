"""Nudged elastic band: symmetric hops, the barrier against the exact saddle, resuming, error texts."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.geometry import find_mic
from ase.optimize import BFGS
from emt_cases import CountingEMT, adatom_hop, with_emt
from rewriting import rewrite_arrays
from scipy.spatial.transform import Rotation

from dpa2calc.applications.defects.neb import nudged_elastic_band
from dpa2calc.applications.defects.neb_result import NudgedElasticBand
from dpa2calc.applications.defects.vacancy import vacancy_hop
from dpa2calc.applications.molecules.vibrations import vibrations
from dpa2calc.errors import ConfigError, DataError, StructureError


@pytest.fixture(scope="module")
def hop():
    initial, final = vacancy_hop(bulk("Cu", a=3.59), min_length=7.0)
    initial.calc = EMT()
    return initial, final


@pytest.fixture(scope="module")
def band(hop):
    return nudged_elastic_band(*hop, n_images=5, fmax=0.01, progress=False)


def test_vacancy_hop_is_symmetric(band):
    assert band.converged and band.residual_force <= 0.01
    assert band.saddle == 2 and band.minima == []
    assert band.reaction_energy == pytest.approx(0.0, abs=1e-4)
    assert band.barrier_forward == pytest.approx(band.barrier_backward, abs=1e-4)
    assert band.energies == pytest.approx(band.energies[::-1], abs=2e-3)
    assert band.slopes[2] == pytest.approx(0.0, abs=0.02)
    assert band.barrier_error < 0.002
    jump = np.linalg.norm(band.positions[-1] - band.positions[0], axis=1).max()
    assert jump == pytest.approx(3.59 / np.sqrt(2), abs=0.2)


def test_barrier_is_that_of_the_exact_saddle(hop, band):
    """By symmetry the saddle is the relaxed midpoint: relaxing from it cannot leave the mirror plane."""
    initial, final = hop
    middle = initial.copy()
    step = find_mic(final.positions - initial.positions, initial.cell, pbc=True)[0]
    middle.positions += step / 2
    energies = []
    for atoms in (initial.copy(), middle):
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
        energies.append(atoms.get_potential_energy())
    assert band.barrier_forward == pytest.approx(energies[1] - energies[0], abs=2e-3)


def test_saddle_has_one_imaginary_mode(band):
    saddle = with_emt(band.images()[band.saddle])
    mover = int(np.linalg.norm(band.positions[-1] - band.positions[0], axis=1).argmax())
    result = vibrations(saddle, indices=[mover], fmax=0.02, progress=False)
    assert result.n_imaginary == 1
    along = band.positions[-1][mover] - band.positions[0][mover]
    cosine = result.modes[0][mover] @ along / np.linalg.norm(along) / np.linalg.norm(result.modes[0][mover])
    assert abs(cosine) > 0.999


def test_adatom_hop_keeps_constraints_and_caller():
    initial, final = adatom_hop()
    copies = initial.copy(), final.copy()
    result = nudged_elastic_band(initial, final, n_images=5, fmax=0.03, progress=False)
    assert (initial, final) == copies
    assert result.converged and 0.2 < result.barrier_forward < 0.7
    assert result.barrier_forward == pytest.approx(result.barrier_backward, abs=5e-3)
    held = initial.constraints[0].index
    assert np.ptp(result.positions[:, held], axis=0).max() == 0.0


def test_wrapped_end_takes_the_short_way(hop, band):
    initial, final = hop
    wrapped = final.copy()
    wrapped.positions += wrapped.cell.array[0] * 2
    wrapped.wrap()
    other = nudged_elastic_band(
        initial, wrapped, n_images=3, climb=False, max_steps=1, fmax=5.0, progress=False
    )
    assert other.path[-1] == pytest.approx(band.path[-1], abs=0.3)


def test_a_step_of_half_the_cell_is_one_path_in_any_orientation():
    """Both ways are equally short; ends, images between them and tangents must be of the same one."""
    lengths, jumps = [], []
    for turn in (np.eye(3), *Rotation.random(2, random_state=4).as_matrix()):
        ends = adatom_hop()
        for atoms in ends:
            atoms.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
        band = nudged_elastic_band(*ends, n_images=5, fmax=0.2, progress=False)
        lengths.append(band.path[-1])
        jumps.append(np.abs(np.diff(band.positions, axis=0)).max())
    assert lengths == pytest.approx(np.full(3, lengths[0]), abs=0.02)
    assert max(jumps) < 1.0


def test_each_step_computes_each_image_once(hop):
    initial, final = hop
    initial = initial.copy()
    initial.calc = CountingEMT()
    with pytest.warns(UserWarning, match="not converged"):
        result = nudged_elastic_band(
            initial, final, n_images=5, fmax=1e-6, max_steps=6, climb=False, relax_ends=True, progress=False
        )
    ends = CountingEMT()
    for atoms in (initial.copy(), final.copy()):
        atoms.calc = ends
        BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=5e-7, steps=500)
    # six steps and the start, and once more for the result, of three inner images
    assert initial.calc.calls - ends.calls <= 3 * (result.n_steps + 2) + 4


def test_resumes_from_its_folder(hop, band, tmp_path):
    with pytest.warns(UserWarning, match=r"not converged: force .* call it again with a larger max_steps"):
        cut = nudged_elastic_band(*hop, n_images=5, fmax=0.01, max_steps=10, folder=tmp_path, progress=False)
    assert not cut.converged and "NOT CONVERGED" in cut.summary()
    done = nudged_elastic_band(*hop, n_images=5, fmax=0.01, folder=tmp_path, progress=False)
    assert done.converged
    assert done.barrier_forward == pytest.approx(band.barrier_forward, abs=1e-3)
    again = nudged_elastic_band(*hop, n_images=5, fmax=0.01, folder=tmp_path, progress=False)
    assert again.n_steps == 0 and again.barrier_forward == pytest.approx(done.barrier_forward, abs=1e-9)
    with pytest.raises(
        ConfigError, match=r"band\.npz holds another band \(different are options: n_images \(5 -> 7\)"
    ):
        nudged_elastic_band(*hop, n_images=7, fmax=0.01, folder=tmp_path, progress=False)


def test_free_molecule_may_turn():
    """The final state of an inverted NH3 is turned and shifted: the path must not contain that motion."""
    initial, final = molecule("NH3"), molecule("NH3")
    final.positions[:, 2] *= -1
    final.rotate(50, (1, 2, 3))
    final.positions += 3.0
    initial.calc = EMT()
    result = nudged_elastic_band(initial, final, n_images=5, fmax=0.03, progress=False)
    assert result.converged and result.path[-1] < 2.0
    assert result.barrier_forward == pytest.approx(result.barrier_backward, abs=2e-3)


class DoubleWell(Calculator):
    """One particle in a field: E = (x² - 1)² + 2 y² + z², minima at x = ±1, a barrier of 1 eV between."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x, y, z = atoms.positions.T
        energy = float(((x**2 - 1) ** 2 + 2 * y**2 + z**2).sum())
        self.results = {"energy": energy, "forces": -np.array([4 * x * (x**2 - 1), 4 * y, 2 * z]).T}


def test_a_particle_in_a_field_is_not_taken_for_a_free_molecule():
    ends = [Atoms("H", positions=[[x, 0.2, 0.0]]) for x in (-0.9, 1.1)]
    ends[0].calc = DoubleWell()
    found = nudged_elastic_band(*ends, n_images=5, progress=False)
    assert found.converged and found.barrier_forward == pytest.approx(1.0, abs=1e-3)
    assert found.positions[found.saddle] == pytest.approx(np.zeros((1, 3)), abs=0.02)


def test_round_trip_images_and_plot(band, tmp_path):
    loaded = NudgedElasticBand.load(band.save(tmp_path / "n.npz"))
    assert loaded.summary() == band.summary()
    images = loaded.images()
    assert [image.get_potential_energy() for image in images] == pytest.approx(list(band.energies))
    grid, curve = loaded.spline()
    assert curve.max() - curve[0] == pytest.approx(band.barrier_forward, abs=0.01)
    assert grid[-1] == pytest.approx(band.path[-1])
    assert "barrier" in loaded.plot().get_title()


def test_errors(hop):
    initial, final = hop
    with pytest.raises(ConfigError, match=r"n_images must be 3 or more \(got 2\)"):
        nudged_elastic_band(initial, final, n_images=2)
    with pytest.raises(ConfigError, match="spring must be a positive number"):
        nudged_elastic_band(initial, final, spring=0.0)
    with pytest.raises(StructureError, match="same atoms in the same order"):
        nudged_elastic_band(initial, final[:-1])
    with pytest.raises(StructureError, match="same structure"):
        nudged_elastic_band(initial, initial)
    strained = final.copy()
    strained.set_cell(final.cell * 1.01)
    with pytest.raises(StructureError, match="same cell and pbc"):
        nudged_elastic_band(initial, strained)
    with pytest.raises(StructureError, match="the initial state is not relaxed: force"):
        nudged_elastic_band(initial, final, relax_ends=False, fmax=0.01, progress=False)
    bare = initial.copy()
    with pytest.raises(StructureError, match="no calculator"):
        nudged_elastic_band(bare, final)
    near = initial.copy()
    near.positions[0, 0] += 0.1
    with pytest.raises(StructureError, match="both ends relax into the same minimum"):
        nudged_elastic_band(initial, near, progress=False)
    one, other = adatom_hop()
    other.positions[0] += 0.1
    text = r"\(FixAtoms\) keep its atoms from the final one: atom 0 \(Cu\) would stay 0.173 Å away"
    with pytest.raises(StructureError, match=text):
        nudged_elastic_band(one, other)


def molecule_hop():
    """Inversion of NH3."""
    initial, final = molecule("NH3"), molecule("NH3")
    final.positions[:, 2] *= -1
    initial.calc = EMT()
    return initial, final


def cut_band(initial, final, folder, **changes):
    options = {"n_images": 3, "fmax": 0.05, "max_steps": 3, "progress": False, **changes}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not converged")
        return nudged_elastic_band(initial, final, folder=folder, **options)


def test_a_band_belongs_to_its_ends_calculator_and_options(tmp_path):
    initial, final = molecule_hop()
    cut_band(initial, final, tmp_path)
    other = final.copy()
    other.positions[1, 2] += 0.02
    heavy = with_emt(initial.copy())
    heavy.set_masses([20.0] * 4)
    for first, last, changes, named in (
        (initial, other, {}, "final state: positions"),
        (heavy, final, {}, "initial state: masses"),
        (initial, final, {"spring": 2.0}, r"options: spring \(1\.0 -> 2\.0\)"),
        (initial, final, {"interpolation": "linear"}, r'options: interpolation \("idpp" -> "linear"\)'),
    ):
        with pytest.raises(ConfigError, match=rf"band\.npz holds another band .*{named}.*another folder"):
            cut_band(first, last, tmp_path, **changes)
    assert cut_band(initial, final, tmp_path, max_steps=500, fmax=np.float64(0.05)).converged
    with pytest.raises(ConfigError, match="climbs already; use climb=True"):
        cut_band(initial, final, tmp_path, climb=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, a: a.pop("stage"),
        lambda h, a: a.update(stage=np.array(7)),
        lambda h, a: a.update(stage=np.array("x")),
        lambda h, a: a.update(positions=a["positions"] * np.nan),
        lambda h, a: a.update(positions=a["positions"].astype(str)),
        lambda h, a: a.update(__json__=np.array("{")),
        lambda h, a: a.update(__json__=np.array("[]")),
    ],
)
def test_a_damaged_band_is_refused(tmp_path, change):
    cut_band(*molecule_hop(), tmp_path)
    rewrite_arrays(tmp_path / "band.npz", change)
    with pytest.raises((DataError, ConfigError), match=r"band\.npz (is|holds)"):
        cut_band(*molecule_hop(), tmp_path)


def test_a_band_of_an_earlier_version_opens_with_a_warning(tmp_path):
    cut_band(*molecule_hop(), tmp_path)
    with np.load(tmp_path / "band.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if name != "__json__"}
    np.savez(tmp_path / "band.npz", **arrays)
    with pytest.warns(UserWarning, match="did not note what it belongs to"):
        cut_band(*molecule_hop(), tmp_path)


def test_band_of_an_earlier_version_is_loaded(band, tmp_path):
    path = band.save(tmp_path / "band.npz")
    rewrite_arrays(path, lambda h, a: h["values"].pop("exchanged"))
    assert NudgedElasticBand.load(path).summary() == band.summary()
