"""Angles: exact crystals and random directions first, then a naive loop and ASE, then errors."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from emt_cases import rattled

from dpa2calc.applications import AngularDistribution, angular_distribution
from dpa2calc.errors import ConfigError, DataError, ElementError, StructureError

CELL = np.array([[9.0, 0.0, 0.0], [3.0, 8.0, 0.0], [-2.0, 3.0, 7.5]])


def random_gas(symbols: str, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, cell=CELL, pbc=True)
    atoms.positions = rng.random((len(atoms), 3)) @ CELL
    return atoms


def counts_of(adf: AngularDistribution) -> dict[float, float]:
    """Angles per centre in every non-empty bin."""
    numbers = adf.density * adf.widths * adf.angles_per_centre
    return {float(adf.angle[k]): numbers[k] for k in np.flatnonzero(numbers > 1e-9)}


@pytest.mark.parametrize("bin_width", [1.0, 0.5, 5.0])
@pytest.mark.parametrize("cubic", [True, False])
def test_fcc_has_its_exact_angles_with_the_collinear_ones(cubic: bool, bin_width: float) -> None:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=cubic)
    adf = angular_distribution(atoms, "Cu-Cu-Cu", cutoff=3.0, bin_width=bin_width)
    assert counts_of(adf) == pytest.approx({60.0: 24, 90.0: 12, 120.0: 24, 180.0: 6})
    assert adf.angles_per_centre == pytest.approx(66)
    assert np.sum(adf.density * adf.widths) == pytest.approx(1.0)


def test_collinear_neighbours_survive_rounding_in_any_direction() -> None:
    # cos = -1 - 1e-16 happens for some directions; matscipy 1.3 puts these into its first bins
    rng = np.random.default_rng(0)
    for axis in rng.normal(size=(200, 3)):
        atoms = Atoms("CuOCu", positions=[axis, [0, 0, 0], -axis])
        adf = angular_distribution(atoms, "Cu-O-Cu", cutoff=10.0)
        assert counts_of(adf) == pytest.approx({180.0: 1})


def test_diamond_and_rocksalt() -> None:
    silicon = angular_distribution(bulk("Si", "diamond", a=5.43), "Si-Si-Si", cutoff=2.6, bin_width=0.5)
    assert counts_of(silicon) == pytest.approx({109.5: 6})
    salt = bulk("NaCl", "rocksalt", a=5.64)
    assert counts_of(angular_distribution(salt, "Cl-Na-Cl", cutoff=3.2)) == pytest.approx(
        {90.0: 12, 180.0: 3}
    )
    # unlike ends: 6 Cl times 12 Na around each Na
    mixed = angular_distribution(salt, "Cl-Na-Na", cutoff=(3.2, 4.2))
    assert mixed.angles_per_centre == pytest.approx(72)
    assert counts_of(mixed) == pytest.approx({45.0: 24, 90.0: 24, 135.0: 24})


def test_random_directions_follow_the_sine() -> None:
    frames = [random_gas("O60H20", seed) for seed in range(30)]
    adf = angular_distribution(frames, "O-H-O", cutoff=4.0, bin_width=10.0)
    deviation = (adf.relative_to_random - 1.0) * adf.density / adf.density_error
    assert np.abs(adf.relative_to_random[1:-1] - 1.0).max() < 0.05
    assert 0.2 < np.mean(deviation**2) < 3.0


def naive_counts(
    atoms: Atoms, triplet: tuple[str, str, str], cutoffs: tuple[float, float], n_bins: int
) -> np.ndarray:
    reach = range(-2, 3)
    shifts = np.array([[x, y, z] for x in reach for y in reach for z in reach]) @ atoms.cell.array
    symbols = np.array(atoms.get_chemical_symbols())
    counts = np.zeros(n_bins)
    for centre in np.flatnonzero(symbols == triplet[1]):
        sides = []
        for element, cutoff in ((triplet[0], cutoffs[0]), (triplet[2], cutoffs[1])):
            vectors = (
                atoms.positions[symbols == element][:, None] + shifts - atoms.positions[centre]
            ).reshape(-1, 3)
            length = np.linalg.norm(vectors, axis=1)
            sides.append(vectors[(length < cutoff) & (length > 1e-9)])
        for i, u in enumerate(sides[0]):
            for j, v in enumerate(sides[1]):
                if triplet[0] == triplet[2] and j <= i:
                    continue
                angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))
                counts[round(angle / 180.0 * (n_bins - 1))] += 1
    return counts / np.sum(symbols == triplet[1])


@pytest.mark.parametrize(
    "triplet, cutoffs",
    [
        (("O", "H", "O"), (4.0, 4.0)),
        (("O", "O", "O"), (6.0, 6.0)),
        (("H", "O", "O"), (3.0, 4.5)),
        (("O", "O", "H"), (4.5, 3.0)),
    ],
)
def test_equal_to_a_naive_loop_over_images(triplet, cutoffs) -> None:
    atoms = random_gas("O8H5", seed=2)
    cutoff = cutoffs[0] if cutoffs[0] == cutoffs[1] else cutoffs
    adf = angular_distribution(atoms, triplet, cutoff=cutoff, bin_width=3.0)
    naive = naive_counts(atoms, triplet, cutoffs, 61)
    np.testing.assert_allclose(adf.density * adf.widths * adf.angles_per_centre, naive, atol=1e-9)


def test_equal_to_matscipy_where_nothing_is_collinear() -> None:
    angle_distribution = pytest.importorskip("matscipy.angle_distribution").angle_distribution
    neighbours = pytest.importorskip("matscipy.neighbours").neighbour_list
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=1)
    i, j, vectors = neighbours("ijD", atoms, 3.1)
    other = angle_distribution(i, j, vectors, 18, 3.1)  # ordered pairs, 18 bins of 10 degrees
    adf = angular_distribution(atoms, "Cu-Cu-Cu", cutoff=3.1, bin_width=4.0)
    counts = adf.density * adf.widths * adf.angles_per_centre * len(atoms)
    # both have bin edges at 10, 30, 50, ... degrees
    ours = np.histogram(adf.angle, [0, *range(10, 180, 20), 180], weights=counts)[0]
    theirs = np.add.reduceat(other, [0, *range(1, 18, 2)]) / 2
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ours.sum() == pytest.approx(66 * len(atoms))


def test_water_molecule_without_a_cell() -> None:
    water = molecule("H2O")
    adf = angular_distribution(water, "H-O-H", cutoff=1.2)
    assert adf.angle[np.argmax(adf.density)] == pytest.approx(water.get_angle(1, 0, 2), abs=0.5)
    assert adf.mean == pytest.approx(water.get_angle(1, 0, 2), abs=0.5)


def test_cutoff_from_the_first_minimum_of_g() -> None:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)
    frames = rattled(atoms, 5, 0.1)
    adf = angular_distribution(frames, "Cu-Cu-Cu")
    assert 2.9 < adf.cutoffs[0] < 3.4
    assert adf.angles_per_centre == pytest.approx(66, rel=0.01)


def test_saved_and_compared(tmp_path) -> None:
    frames = [random_gas("O30", seed) for seed in range(4)]
    adf = angular_distribution(frames, "O-O-O", cutoff=4.0, n_blocks=2)
    again = AngularDistribution.load(adf.save(tmp_path / "adf.npz"))
    assert again.triplet == ("O", "O", "O") and again.cutoffs == (4.0, 4.0)
    assert adf.compare(again) == 0.0
    ax = adf.plot(reference=again)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), adf.density)


def test_errors_say_what_to_do() -> None:
    atoms = random_gas("O8H5", seed=2)
    with pytest.raises(ConfigError, match="does not name 3 elements"):
        angular_distribution(atoms, "O-O")
    with pytest.raises(ConfigError, match=r"bin_width = 7\.0° does not divide 180°"):
        angular_distribution(atoms, "O-O-O", bin_width=7.0, cutoff=3.0)
    with pytest.raises(ConfigError, match="differs for A and C, but both are O"):
        angular_distribution(atoms, "O-H-O", cutoff=(3.0, 4.0))
    with pytest.raises(ConfigError, match="must be > 0"):
        angular_distribution(atoms, "O-H-O", cutoff=-1.0)
    with pytest.raises(ElementError, match="no Li atom"):
        angular_distribution(atoms, "O-Li-O", cutoff=3.0)
    with pytest.raises(StructureError, match=r"no O-H-O angle within 0\.01 and 0.01 Å; raise the cutoff"):
        angular_distribution(atoms, "O-H-O", cutoff=0.01)
    with pytest.raises(DataError, match="can be read only once"):
        angular_distribution(iter([atoms]), "O-H-O")
    with pytest.raises(StructureError, match=r"pbc FFF.*angles need none where the cutoff is given"):
        angular_distribution(molecule("H2O"), "H-O-H")
