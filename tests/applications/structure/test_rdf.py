"""g(r): exact limits first, then other programs where they are right, then the texts of errors."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.geometry import get_distances

from dpa2calc.applications import (
    Frames,
    RadialDistribution,
    angular_distribution,
    radial_distribution,
    radial_distributions,
    van_hove,
)
from dpa2calc.errors import ConfigError, DataError, ElementError, StructureError

TRICLINIC = np.array([[11.0, 0.0, 0.0], [3.0, 10.0, 0.0], [-2.0, 4.0, 9.0]])


def ideal_gas(
    n_frames: int, seed: int = 0, symbols: str = "O40H80", cell: np.ndarray = TRICLINIC
) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    template = Atoms(symbols, cell=cell, pbc=True)
    frames = [template.copy() for _ in range(n_frames)]
    for atoms in frames:
        atoms.positions = rng.random((len(atoms), 3)) @ cell
    return frames


@pytest.mark.parametrize("pair", ["O-O", "O-H", "H-O", "H-H"])
def test_ideal_gas_is_one_within_its_error_bars(pair: str) -> None:
    rdf = radial_distribution(ideal_gas(200), pair, r_max=4.0, bin_width=0.25)
    deviation = (rdf.g - 1.0)[4:] / rdf.g_error[4:]
    assert np.abs(rdf.g[8:] - 1.0).max() < 0.06
    assert np.abs(deviation).max() < 5.0
    assert 0.3 < np.mean(deviation**2) < 3.0  # the error bars are neither too small nor too large
    assert rdf.normalisation == ("N-1" if pair in ("O-O", "H-H") else "N")


def test_ideal_gas_is_one_far_beyond_half_the_cell() -> None:
    # own images make spikes at lattice vectors for like pairs, so look at the unlike pair
    rdf = radial_distribution(ideal_gas(30), "O-H", r_max=20.0, bin_width=0.5)
    assert np.abs(rdf.g[8:] - 1.0).max() < 0.03
    assert rdf.normalisation == "N"


def test_like_pairs_beyond_the_cell_average_to_one_with_own_images() -> None:
    rdf = radial_distribution(ideal_gas(5), "O-O", r_max=40.0, bin_width=0.5)
    ideal = rdf.density * 4.0 / 3.0 * np.pi * rdf.upper_edges**3
    assert rdf.coordination[-1] == pytest.approx(ideal[-1], rel=0.01)
    assert np.average(rdf.g[40:], weights=rdf.r[40:] ** 2) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("atoms", [bulk("Cu", "fcc", a=3.6), bulk("Cu", "fcc", a=3.6, cubic=True)])
def test_fcc_shells_from_any_cell(atoms: Atoms) -> None:
    a = 3.6
    rdf = radial_distribution(atoms, "Cu-Cu", r_max=6.0, bin_width=0.05)
    for radius, total in [(2.6, 12), (3.7, 18), (4.5, 42), (5.2, 54), (5.8, 78)]:
        assert rdf.coordination_at(radius)[0] == pytest.approx(total, abs=1e-9)
    assert rdf.first_peak()[0] == pytest.approx(a / np.sqrt(2), abs=0.05)
    assert rdf.coordination_at(rdf.first_minimum())[0] == pytest.approx(12.0)


def test_cell_and_supercell_give_the_same_curve() -> None:
    atoms = Atoms(
        "OH2", cell=TRICLINIC, pbc=True, scaled_positions=[[0, 0, 0], [0.1, 0.2, 0.3], [0.5, 0.4, 0.9]]
    )
    larger = make_supercell(atoms, [[2, 1, 0], [0, 1, 0], [0, -1, 2]])
    for pair in ("O-O", "O-H", "H-H"):
        one, two = (
            radial_distribution(a, pair, r_max=20, bin_width=0.0507, normalisation="N")
            for a in (atoms, larger)
        )
        np.testing.assert_allclose(one.g, two.g, atol=1e-9)
        np.testing.assert_allclose(one.coordination, two.coordination, atol=1e-9)


def naive_histogram(atoms: Atoms, first: str, second: str, width: float, n_bins: int) -> np.ndarray:
    """Ordered pairs by a loop over all images."""
    symbols = np.array(atoms.get_chemical_symbols())
    counts = np.zeros(n_bins)
    reach = range(-4, 5)
    shifts = np.array([[a, b, c] for a in reach for b in reach for c in reach]) @ atoms.cell.array
    for i in np.flatnonzero(symbols == first):
        for j in np.flatnonzero(symbols == second):
            d = np.linalg.norm(atoms.positions[j] + shifts - atoms.positions[i], axis=1)
            if i == j:
                d = d[d > 1e-9]
            counts += np.histogram(d, bins=width * np.arange(n_bins + 1))[0]
    return counts


@pytest.mark.parametrize("pair", ["O-O", "O-H", "H-O"])
def test_counts_equal_a_naive_loop_over_images(pair: str) -> None:
    atoms = ideal_gas(1, seed=3, symbols="O6H5")[0]
    atoms.positions += 25.0  # outside the cell
    rdf = radial_distribution(atoms, pair, r_max=14.0, bin_width=0.2)
    first, second = pair.split("-")
    naive = naive_histogram(atoms, first, second, 0.2, 70) / atoms.symbols.count(first)
    np.testing.assert_allclose(np.diff(rdf.coordination, prepend=0.0), naive, atol=1e-9)


def test_g_equals_freud_and_mdanalysis_below_half_the_cell() -> None:
    freud = pytest.importorskip("freud")
    inter_rdf = pytest.importorskip("MDAnalysis.lib.distances")
    atoms = ideal_gas(1, seed=4)[0]
    rdf = radial_distribution(atoms, "O-H", r_max=4.0, bin_width=0.1)
    # freud wants an upper triangular cell: rotate cell and positions together
    cell, rotation = atoms.cell.standard_form()
    box = freud.box.Box.from_matrix(cell.array.T)
    positions = atoms.positions @ rotation.T
    other = freud.density.RDF(bins=40, r_max=4.0)
    oxygen, hydrogen = positions[atoms.symbols == "O"], positions[atoms.symbols == "H"]
    other.compute((box, box.wrap(hydrogen)), query_points=box.wrap(oxygen))
    np.testing.assert_allclose(rdf.g, other.rdf, rtol=2e-5, atol=1e-6)
    _, d = inter_rdf.capped_distance(oxygen, hydrogen, 4.0, box=cell.cellpar())
    np.testing.assert_allclose(
        np.diff(rdf.coordination, prepend=0.0) * 40, np.histogram(d, 40, (0.0, 4.0))[0], atol=1
    )


def test_frames_of_different_volume_are_normalised_one_by_one() -> None:
    frames = [a for scale in (0.8, 1.0, 1.3) for a in ideal_gas(60, seed=5, cell=TRICLINIC * scale)]
    rdf = radial_distribution(frames, "H-H", r_max=3.0, bin_width=0.5)
    assert np.abs(rdf.g[2:] - 1.0).max() < 0.03


def test_own_images_are_found_once_in_each_direction() -> None:
    atoms = Atoms("Cu", cell=[2.0, 3.0, 4.0], pbc=True)
    rdf = radial_distribution(atoms, "Cu-Cu", r_max=3.95, bin_width=0.1)
    distances = get_distances([[0, 0, 0]], [[2, 0, 0], [0, 3, 0], [2, 3, 0]])[1]
    assert rdf.coordination[-1] == 4 + 4 * (distances[0, 2] < 3.95)


def test_selection_order_and_streaming_do_not_matter(tmp_path) -> None:
    from ase.io import write

    frames = ideal_gas(30, seed=6)
    write(tmp_path / "a.extxyz", frames)
    import lzma

    (tmp_path / "a.extxyz.xz").write_bytes(lzma.compress((tmp_path / "a.extxyz").read_bytes()))
    write(tmp_path / "a.traj", frames)
    expected = radial_distribution(frames[4:25:3], "O-H", r_max=3.0)
    for source in (
        frames,
        tmp_path / "a.extxyz",
        tmp_path / "a.extxyz.xz",
        str(tmp_path / "a.traj"),
        iter(frames),
    ):
        rdf = radial_distribution(Frames(source, start=4, stop=25, step=3), "O-H", r_max=3.0)
        assert rdf.n_frames == 7
        np.testing.assert_allclose(rdf.g, expected.g, atol=1e-6)
    many = radial_distributions(iter(frames[4:25:3]), ["H-H", "O-H"], r_max=3.0)
    np.testing.assert_array_equal(many["O-H"].g, expected.g)


def test_first_peak_minimum_and_comparison_of_a_known_curve() -> None:
    r = 0.05 * (np.arange(120) + 0.5)
    g = 1.0 + 2.0 * np.exp(-(((r - 2.77) / 0.15) ** 2)) - np.exp(-(((r - 2.1) / 0.4) ** 2))
    g -= 0.4 * np.exp(-(((r - 3.5) / 0.3) ** 2))
    g[r < 2.1] = 0.0
    nan = np.full(120, np.nan)
    curve = RadialDistribution(
        pair=("O", "O"),
        r=r,
        g=g,
        g_error=nan,
        coordination=r,
        coordination_error=nan,
        density=0.03,
        n_frames=1,
        n_blocks=1,
        normalisation="N-1",
    )
    assert curve.first_peak()[0] == pytest.approx(2.77, abs=0.03)
    assert curve.first_minimum() == pytest.approx(3.5, abs=0.06)
    same = curve.compare((r + 0.0, g * 1.05))
    assert same.peak_height_ratio == pytest.approx(1 / 1.05)
    assert same.mean_absolute_deviation == pytest.approx(0.05 * g.mean())
    assert curve.compare((r + 0.02, g)).peak_shift == pytest.approx(-0.02, abs=1e-6)


def test_saved_result_is_the_same_and_plots_with_its_reference(tmp_path) -> None:
    rdf = radial_distribution(ideal_gas(12), "O-H", r_max=4.0)
    again = RadialDistribution.load(rdf.save(tmp_path / "rdf.npz"))
    np.testing.assert_array_equal(again.g, rdf.g)
    assert again.pair == ("O", "H") and again.summary() == rdf.summary()
    ax = rdf.plot(reference={"DFT": again})
    assert ax.get_legend().get_texts()[0].get_text() == "DFT"
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), rdf.g)


def test_input_is_not_changed() -> None:
    atoms = ideal_gas(1)[0]
    before = atoms.copy()
    radial_distribution(atoms, "O-O")
    assert atoms == before


def test_errors_say_what_to_do(tmp_path) -> None:
    atoms = ideal_gas(1)[0]
    with pytest.raises(ElementError, match="frame 0 has no Li atom; it has H O"):
        radial_distribution(atoms, "Li-O")
    with pytest.raises(ConfigError, match="does not name 2 elements"):
        radial_distribution(atoms, "O")
    with pytest.raises(ConfigError, match="normalisation = 'n' is not allowed; allowed: auto, N-1, N"):
        radial_distribution(atoms, "O-O", normalisation="n")
    with pytest.raises(ConfigError, match="bin_width = 0"):
        radial_distribution(atoms, "O-O", bin_width=0.0)
    with pytest.raises(StructureError, match=r'only one O atom.*normalisation="N"'):
        radial_distribution(Atoms("O", cell=[9, 9, 9], pbc=True), "O-O", r_max=4.0)
    slab = atoms.copy()
    slab.pbc = (True, True, False)
    with pytest.raises(StructureError, match="pbc TTF"):
        radial_distribution(slab, "O-O")
    broken = atoms.copy()
    broken.positions[3, 1] = np.nan
    with pytest.raises(DataError, match="frame 1 has a position or cell that is NaN"):
        radial_distribution([atoms, broken], "O-O")
    with pytest.raises(DataError, match="no trajectory file"):
        radial_distribution(tmp_path / "absent.traj", "O-O")
    with pytest.raises(DataError, match="has no frame in"):
        radial_distribution(Frames([atoms], start=5), "O-O")
    with pytest.raises(DataError, match="count from the end"):
        radial_distribution(Frames(iter([atoms]), start=-5), "O-O")
    with pytest.raises(DataError, match="n_blocks = 1"):
        radial_distribution(atoms, "O-O", n_blocks=1)


@pytest.mark.parametrize(
    "options", [{"r_max": 5.0, "bin_width": 1e-9}, {"r_max": 1e9}, {"bin_width": 1e-300}]
)
def test_a_curve_has_at_most_a_hundred_thousand_bins(options):
    with pytest.raises(ConfigError, match=r"has over 100000 bins of .* take a shorter range"):
        radial_distribution(ideal_gas(1), "O-H", **options)


def test_angles_and_van_hove_functions_have_no_more():
    with pytest.raises(ConfigError, match="has over 100000 bins of width 1e-09"):
        angular_distribution(ideal_gas(1), "H-O-H", cutoff=2.0, bin_width=1e-9)
    with pytest.raises(ConfigError, match="has over 100000 bins of width 1e-09"):
        van_hove(ideal_gas(1) * 4, "O", interval_fs=100, lags_ps=[0.1], bin_width=1e-9)


@pytest.mark.parametrize(
    ("frame", "r_max", "words"),
    [
        (
            Atoms("O3000H3000", np.random.default_rng(0).random((6000, 3)), cell=[30.0] * 3, pbc=True),
            5.0,
            "fractional",
        ),
        (Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[5.0] * 3, pbc=True), 300.0, "neighbours within 300 Å"),
        (
            Atoms(
                "O99H99", np.random.default_rng(0).random((198, 3)) * 30, cell=[10.0, 10.0, 0.12], pbc=True
            ),
            9.0,
            "allowed",
        ),
    ],
)
def test_pairs_that_would_fill_the_memory_are_refused(frame, r_max, words):
    with pytest.raises(StructureError, match=words):
        radial_distribution(frame, "O-H", r_max=r_max)


def test_range_without_pairs_has_no_peak() -> None:
    """The default range of a small primitive cell ends before the first neighbour."""
    atoms = bulk("Cu").repeat((2, 2, 2))
    rdf = radial_distribution([atoms], "Cu-Cu")
    with pytest.raises(StructureError, match=r"no Cu-Cu pair lies within 2.05 Å.*raise r_max"):
        rdf.first_peak()
    assert "no Cu-Cu pair lies within" in rdf.summary() and "height" not in rdf.summary()
    with pytest.raises(StructureError, match="no Cu-Cu pair"):
        rdf.compare(radial_distribution([atoms], "Cu-Cu", r_max=4.0))


def test_range_of_fewer_than_three_bins_is_refused() -> None:
    atoms = bulk("Cu", cubic=True)
    with pytest.raises(ConfigError, match="three bins at least"):
        radial_distribution([atoms], "Cu-Cu", r_max=0.1)
    assert len(radial_distribution([atoms], "Cu-Cu", r_max=0.15).r) == 3


def test_one_frame_has_no_error_bars_and_says_so():
    atoms = bulk("Cu", cubic=True).repeat(2)
    for result in (
        radial_distribution([atoms], "Cu-Cu", r_max=4.0),
        angular_distribution([atoms], "Cu-Cu-Cu", cutoff=3.0),
    ):
        text = result.summary()
        assert "1 frame, too few for error bars" in text and "± unknown" in text and "nan" not in text
