"""Elastic constants against analytic crystals, matscipy, and published EMT numbers."""

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from emt_cases import with_emt
from scipy.spatial.transform import Rotation

from dpa2calc.applications.crystals import elastic_tensor
from dpa2calc.applications.crystals.elastic import ElasticConstants, elastic_constants
from dpa2calc.applications.crystals.eos import equation_of_state
from dpa2calc.errors import ConfigError

GPA = 160.21766


def cubic_tensor(c11, c12, c44):
    matrix = np.diag([c11] * 3 + [c44] * 3).astype(float)
    matrix[:3, :3] += c12 * (1 - np.eye(3))
    return matrix


@pytest.fixture(scope="module")
def copper():
    atoms = with_emt(bulk("Cu", a=3.6))
    return elastic_constants(atoms, progress=False)


def test_emt_copper_has_the_published_numbers(copper):
    """matscipy gives 172.5, 115.4, 89.9 GPa for EMT copper."""
    values = {name: value for name, (value, _) in copper.constants.items()}
    assert values == pytest.approx({"C11": 172.5, "C12": 115.4, "C44": 89.9}, abs=0.15)
    assert copper.crystal_system == "cubic" and copper.stable
    assert all(error < 0.1 for _, error in copper.constants.values())
    assert np.abs(copper.reference_stress).max() < 0.01


def test_agrees_with_matscipy():
    matscipy = pytest.importorskip("matscipy.elasticity")
    atoms = with_emt(bulk("Cu", a=3.59, cubic=True))
    ours = elastic_constants(atoms, relax="fixed", progress=False)
    theirs, _ = matscipy.fit_elastic_constants(
        atoms, symmetry="triclinic", N_steps=5, delta=2.5e-3, optimizer=None, verbose=False
    )
    assert ours.tensor == pytest.approx(np.asarray(theirs) * GPA, abs=0.3)


def test_bulk_modulus_is_that_of_the_equation_of_state(copper):
    atoms = with_emt(bulk("Cu", a=3.6))
    curve = equation_of_state(atoms, strains=np.linspace(-0.01, 0.01, 9), progress=False)
    assert copper.moduli["bulk_hill"] == pytest.approx(curve.bulk_modulus, rel=3e-3)


def test_nearest_neighbour_crystal_is_analytic():
    """Central bonds of stiffness k without tension in fcc: C11 = 2k/a, C12 = C44 = k/a (Cauchy)."""
    r, epsilon = 3.0, 0.1
    atoms = bulk("Ar", a=r * np.sqrt(2))
    atoms.calc = LennardJones(sigma=r / 2 ** (1 / 6), epsilon=epsilon, rc=1.3 * r)
    unit = 72 * epsilon / r**2 / (r * np.sqrt(2)) * GPA  # k/a, with k = 72 epsilon / r²
    result = elastic_constants(atoms, strains=(0.001, 0.002), progress=False)
    values = {name: value for name, (value, _) in result.constants.items()}
    assert values == pytest.approx({"C11": 2 * unit, "C12": unit, "C44": unit}, rel=1e-3)


def test_any_cell_and_orientation(copper):
    """The standard tensor does not depend on the cell; the tensor in the given frame is the turned one."""
    atoms = bulk("Cu", a=3.6)
    turn = Rotation.from_rotvec([0.5, -0.8, 0.3]).as_matrix()
    atoms.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
    atoms = with_emt(atoms.repeat((1, 2, 1)))
    turned = elastic_constants(atoms, progress=False)
    assert turned.standard_tensor == pytest.approx(copper.standard_tensor, abs=0.05)
    assert turned.tensor == pytest.approx(elastic_tensor.rotate(copper.tensor, turn), abs=0.05)
    assert turned.young_modulus(turn @ [1, 1, 1]) == pytest.approx(copper.young_modulus([1, 1, 1]), abs=0.05)


def test_hexagonal_crystal_with_inner_relaxation():
    atoms = with_emt(bulk("Cu", "hcp", a=2.54, c=4.15))
    relaxed = elastic_constants(atoms, progress=False)
    clamped = elastic_constants(atoms, relax_ions=False, progress=False)
    assert relaxed.crystal_system == "hexagonal"
    assert list(relaxed.constants) == ["C11", "C12", "C13", "C33", "C44"]
    c = relaxed.standard_tensor
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, abs=1e-6)  # isotropic in the basal plane
    # relaxing inner coordinates can only soften the crystal
    assert np.linalg.eigvalsh(clamped.tensor - relaxed.tensor).min() > -0.05
    assert clamped.tensor[0, 0] - relaxed.tensor[0, 0] > 1.0


def test_unstable_crystal_is_called_unstable():
    """EMT copper in the bcc lattice fails C11 > C12."""
    atoms = with_emt(bulk("Cu", "bcc", a=2.86))
    result = elastic_constants(atoms, relax_ions=False, progress=False)
    assert not result.stable and result.eigenvalues[0] < 0
    assert np.isnan(result.moduli["shear_reuss"]) and np.isnan(result.debye_temperature)
    assert "UNSTABLE" in result.summary()


def test_strained_reference_warns():
    atoms = with_emt(bulk("Cu", a=3.5))
    with pytest.warns(UserWarning, match=r"not relaxed \(stress up to .* Use relax='cell'"):
        elastic_constants(atoms, relax="fixed", progress=False)


def test_averages_are_ordered_and_isotropic_bodies_have_none():
    for tensor in (cubic_tensor(170, 120, 75), cubic_tensor(250, 80, 40)):
        m = elastic_tensor.averages(tensor)
        assert m["bulk_voigt"] == pytest.approx((tensor[0, 0] + 2 * tensor[0, 1]) / 3)
        assert m["bulk_reuss"] == pytest.approx(m["bulk_voigt"])
        assert m["shear_reuss"] < m["shear_hill"] < m["shear_voigt"]
        prime, c44 = (tensor[0, 0] - tensor[0, 1]) / 2, tensor[3, 3]
        assert m["shear_reuss"] == pytest.approx(5 / (2 / prime + 3 / c44))
        assert m["shear_voigt"] == pytest.approx((2 * prime + 3 * c44) / 5)
    lame = elastic_tensor.averages(cubic_tensor(160, 80, 40))
    assert lame["anisotropy"] == pytest.approx(0.0, abs=1e-12)
    assert lame["young_hill"] == pytest.approx(
        40 * (3 * 80 + 2 * 40) / (80 + 40)
    )  # mu(3 lambda + 2 mu)/(lambda + mu)
    assert lame["poisson_hill"] == pytest.approx(80 / (2 * (80 + 40)))


def test_rotation_keeps_the_energy_of_a_strain():
    generator = np.random.default_rng(0)
    tensor = generator.normal(size=(6, 6))
    tensor = tensor + tensor.T
    turn = Rotation.random(rng=3).as_matrix()
    strain = generator.normal(size=(3, 3))
    strain = strain + strain.T
    turned = turn @ strain @ turn.T

    def energy(c, e):
        return np.einsum("ij,ijkl,kl", e, elastic_tensor.full_tensor(c), e)

    assert energy(elastic_tensor.rotate(tensor, turn), turned) == pytest.approx(energy(tensor, strain))
    assert elastic_tensor.stability_eigenvalues(elastic_tensor.rotate(tensor, turn)) == pytest.approx(
        elastic_tensor.stability_eigenvalues(tensor)
    )


def test_sound_velocities_and_debye_temperature():
    speeds, modes = elastic_tensor.sound_velocities(cubic_tensor(170, 120, 75), 8960.0, [1, 1, 0])
    expected = np.sqrt(np.array([(170 - 120) / 2, 75, (170 + 120 + 2 * 75) / 2]) * 1e9 / 8960)
    assert speeds == pytest.approx(expected)
    assert np.abs(modes[2]) == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])


def test_debye_temperature_is_the_average_over_directions():
    """For an isotropic tensor Anderson's formula equals the integral over all directions of 1/v³."""
    tensor, density, atoms_per_volume = cubic_tensor(160, 80, 40), 8000.0, 0.08
    directions = Rotation.random(50, rng=1).as_matrix()[:, 0]
    speeds = np.array([elastic_tensor.sound_velocities(tensor, density, d)[0] for d in directions])
    mean = (speeds**-3).mean() ** (-1 / 3)
    expected = 6.62607015e-34 / 1.380649e-23 * mean * (3 * atoms_per_volume * 1e30 / (4 * np.pi)) ** (1 / 3)
    moduli = elastic_tensor.averages(tensor)
    value = elastic_tensor.debye_temperature(
        moduli["bulk_hill"], moduli["shear_hill"], density, atoms_per_volume
    )
    assert value == pytest.approx(expected, rel=1e-6)  # constants of CODATA 2014 and 2018


def test_round_trip_plot_and_resume(copper, tmp_path):
    loaded = ElasticConstants.load(copper.save(tmp_path / "c.npz"))
    assert loaded.summary() == copper.summary()
    assert loaded.constants == copper.constants
    assert "GPa" in loaded.plot().get_title()
    assert loaded.atoms().get_volume() == pytest.approx(11.566, abs=0.01)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"strains": [0.01]}, "two or more different magnitudes"),
        ({"strains": [-0.01, 0.01]}, "two or more different magnitudes"),
        ({"relax": "yes"}, "relax = 'yes' is not allowed; allowed: fixed, cell"),
    ],
)
def test_wrong_options(change, text):
    atoms = with_emt(bulk("Cu", a=3.6))
    with pytest.raises(ConfigError, match=text):
        elastic_constants(atoms, progress=False, **change)


def test_calculator_without_stress():
    class NoStress(EMT):
        implemented_properties = ["energy", "forces"]

    atoms = bulk("Cu", a=3.6)
    atoms.calc = NoStress()
    with pytest.raises(ConfigError, match="needs the stress, which NoStress does not offer"):
        elastic_constants(atoms, progress=False)


class Noisy(EMT):
    """EMT whose stress carries noise, in GPa."""

    def __init__(self, noise, seed=0):
        super().__init__()
        self.noise, self.rng = noise / GPA, np.random.default_rng(seed)

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if "stress" in self.results:
            self.results["stress"] = self.results["stress"] + self.noise * self.rng.normal(size=6)


def clamped(noise, seed=0, **options):
    atoms = bulk("Cu", a=3.59)
    atoms.calc = Noisy(noise, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the noise is stress that is left
        return elastic_constants(atoms, relax="fixed", relax_ions=False, progress=False, **options)


def test_errors_hold_the_noise():
    exact, inside = clamped(0.0), []
    for seed in range(8):
        noisy = clamped(0.05, seed)
        for name, (value, error) in noisy.constants.items():
            inside.append(abs(value - exact.constants[name][0]) < 2 * error)
            assert error > 1.0  # GPa; the noise over the strain is 5
        assert noisy.reason == ""
    assert np.mean(inside) > 0.9


def test_noise_gives_no_constants(tmp_path):
    results = [clamped(3.0, seed) for seed in range(20)]
    refused = [any(np.isnan(value) for value, _ in r.constants.values()) and r.reason for r in results]
    assert np.mean([bool(item) for item in refused]) > 0.95
    text = results[0].summary()
    assert "not determined" in text and "scatter about their slope" in text
    assert ElasticConstants.load(results[0].save(tmp_path / "e.npz")).summary() == text


def test_error_shows_the_change_with_the_strain():
    """Large strains leave the straight part of the stress: the error says so."""
    near, far = clamped(0.0), clamped(0.0, strains=(0.05, 0.1))
    for name, (value, error) in far.constants.items():
        assert abs(value - near.constants[name][0]) < 3 * error
    assert far.constants["C11"][1] > 20 * near.constants["C11"][1]


def test_summary_says_whose_errors_they_are(copper):
    assert "errors are those of the fit; the error of the model comes on top" in copper.summary()
    assert copper.reason == "" and "not determined" not in copper.summary()
