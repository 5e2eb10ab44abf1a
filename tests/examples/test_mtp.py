"""The moment tensor potential of examples/paper against a formula worked out by hand, and its gradient."""

import numpy as np
import pytest
from ase import Atoms
from slopes import slope, unit

# One radial function f(r) = 0.5 (2 + 3 x) (r - 5)^2, x = (2 r - 7) / 3; moments M0 = sum f, Mx = sum f x / r,
# M4 = M0^2, M5 = Mx^2 + My^2 + Mz^2, M6 = M4 M5; E = 10 + 1 M0 + 2 M4 + 3 M5 + 4 M6.
FILE = """MTP
version = 1.1.0
potential_name = MTP1m
scaling = 5.0e-01
species_count = 1
potential_tag =
radial_basis_type = RBChebyshev
	min_dist = 2.0e+00
	max_dist = 5.0e+00
	radial_basis_size = 2
	radial_funcs_count = 1
	radial_coeffs
		0-0
			{2.0e+00, 3.0}
alpha_moments_count = 7
alpha_index_basic_count = 4
alpha_index_basic = {{0, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}
alpha_index_times_count = 5
alpha_index_times = {{0, 0, 1, 4}, {1, 1, 1, 5}, {2, 2, 1, 5}, {3, 3, 1, 5}, {4, 5, 1, 6}}
alpha_scalar_moments = 4
alpha_moment_mapping = {0, 4, 5, 6}
species_coeffs = {1.0e+01}
moment_coeffs = {1, 2.0, 3, 4e-00}
"""


@pytest.fixture
def mtp(script, tmp_path):
    (tmp_path / "fitted.mtp").write_text(FILE)
    return script("mtp").MTP(tmp_path / "fitted.mtp")


def radial(r: float) -> float:
    return 0.5 * (2 + 3 * (2 * r - 7) / 3) * (r - 5) ** 2


def test_three_atoms_by_hand(mtp):
    """Atom 0 at the corner of a right angle; atoms 1 and 2 are 5 Å apart, at the cutoff, where f is 0."""
    atoms = Atoms("Li3", positions=[[0, 0, 0], [3, 0, 0], [0, 4, 0]])
    atoms.calc = mtp

    def site(x: float, y: float) -> float:
        m0, square = x + y, x * x + y * y
        return 10 + m0 + 2 * m0**2 + 3 * square + 4 * m0**2 * square

    a, b = radial(3.0), radial(4.0)
    assert atoms.get_potential_energy() == pytest.approx(site(a, b) + site(a, 0) + site(0, b), rel=1e-12)


def test_forces_are_the_gradient(mtp):
    atoms = Atoms(
        "Li4", positions=np.random.default_rng(0).uniform(0, 4.5, (4, 3)), cell=[6, 6.5, 7], pbc=True
    )
    forces = mtp.get_forces(atoms)
    for index, axis in ((0, 0), (2, 1), (3, 2)):
        expected = -slope(mtp.get_potential_energy, atoms, move=unit(atoms, index, axis), step=1e-5)
        assert forces[index, axis] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_another_kind_of_file_is_refused(script, tmp_path):
    (tmp_path / "x.mtp").write_text(FILE.replace("species_count = 1", "species_count = 2"))
    with pytest.raises(ValueError, match="of one element"):
        script("mtp").MTP(tmp_path / "x.mtp")
