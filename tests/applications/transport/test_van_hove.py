"""Van Hove functions of random walks and hopping ions, and density maps with known occupations."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from ase.io.cube import read_cube, read_cube_data
from scipy.stats import maxwell

from dpa2calc.applications import DensityMap, VanHove, density_map, read_paths, van_hove
from dpa2calc.errors import ConfigError, DataError, StructureError

CELL = np.array([[9.0, 0.0, 0.0], [2.0, 9.0, 0.0], [-1.0, 3.0, 10.0]])


def test_brownian_self_part_is_gaussian_and_distinct_part_flat(brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(1500, 40, coefficient=0.2), CELL)
    result = van_hove(frames, "Li", lags_ps=[0.5, 3.0], interval_fs=100.0, bin_width=0.25)
    for k, t in enumerate(result.time):
        width = 2 * 0.2 * t
        edges = 0.25 * np.arange(len(result.r) + 1)
        expected = np.diff(maxwell(scale=np.sqrt(width)).cdf(edges)) / 0.25
        assert np.abs(result.self_part[k] - expected).max() < 0.06 * expected.max()
        assert result.non_gaussian[k] == pytest.approx(0.0, abs=0.08)
        assert result.self_part[k].sum() * 0.25 + result.beyond[k] == pytest.approx(1.0)
        # walkers start anywhere and know nothing of each other
        assert np.abs(result.distinct_part[k][4:] - 1.0).max() < 0.25
        assert result.distinct_part[k][8:].mean() == pytest.approx(1.0, abs=0.03)


def test_distinct_part_of_ions_that_follow_each_other(paths_of) -> None:
    """A ring of ions on which each moves to the next place: after one step others sit on every old place."""
    places = np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [10.0, 0.0, 0.0], [15.0, 0.0, 0.0]])
    walk = np.array([k * np.array([[5.0, 0.0, 0.0]] * 4) for k in range(50)])
    paths = paths_of(walk, interval_ps=1.0)
    object.__setattr__(paths, "start", places)
    result = van_hove(paths, "Li", lags_ps=[1.0, 2.0], bin_width=0.5, r_max=8.0)
    assert result.distinct_part[0][0] > 100 and result.distinct_part[1][0] > 100
    np.testing.assert_allclose(np.argmax(result.self_part[0]), 10)  # all moved by 5.0 Å
    counts = result.distinct_part[0] * 4 / 3 * np.pi * np.diff((0.5 * np.arange(17)) ** 3) * 3 / paths.volume
    assert counts[0] == pytest.approx(1.0)  # exactly one other ion on every vacated place


def test_hopping_has_a_bimodal_self_part_and_is_not_gaussian(paths_of) -> None:
    rng = np.random.default_rng(2)
    hops = (rng.random((2000, 30, 3)) < 0.004) * rng.choice([-3.0, 3.0], size=(2000, 30, 3))
    walk = hops.cumsum(axis=0) + rng.normal(size=hops.shape) * 0.15
    result = van_hove(paths_of(walk), "Li", lags_ps=[1.0], r_max=5.0)
    shape = result.self_part[0]
    assert result.non_gaussian[0] > 1.0
    assert shape[28:33].max() > 3 * shape[18:24].max()  # a peak at the hop length with nothing before it


def test_ions_that_never_move_have_no_non_gaussian_parameter(paths_of) -> None:
    still = np.zeros((60, 4, 3))
    still[40:, 0, 0] = 2.0  # one ion, one hop
    result = van_hove(paths_of(still[:40]), "Li", lags_ps=[0.5, 1.0])
    assert np.isnan(result.non_gaussian).all()
    assert "non-Gaussian parameter not determined: no atom moved" in result.summary()
    assert np.isfinite(van_hove(paths_of(still), "Li", lags_ps=[2.5]).non_gaussian).all()


def test_errors_of_long_lags_cover_the_truth(brownian_walk, paths_of) -> None:
    """Origins within a lag see the same motion: blocks shorter than the lag have far too small errors."""
    held = []
    edges = np.arange(11)
    for seed in range(60):
        paths = paths_of(brownian_walk(500, 4, seed=seed))
        object.__setattr__(paths, "pbc", np.zeros(3, dtype=bool))  # no distinct part, which takes time
        result = van_hove(paths, "Li", lags_ps=[0.5, 8.0, 20.0], bin_width=1.0, r_max=10.0)
        assert result.n_blocks == 10 and np.isnan(result.self_error[2]).all()  # 20 of 50 ps: no two blocks
        expected = np.diff(maxwell(scale=np.sqrt(2 * 0.1 * 8.0)).cdf(edges))
        often = expected > 0.05
        held.append((np.abs(result.self_part[1] - expected) <= result.self_error[1])[often].mean())
    assert 0.58 < np.mean(held) < 0.78


def test_van_hove_errors_and_files(tmp_path, brownian_walk, paths_of) -> None:
    paths = paths_of(brownian_walk(100, 3))
    result = van_hove(paths, "Li", lags_ps=[1.0])
    assert VanHove.load(result.save(tmp_path / "v.npz")).summary() == result.summary()
    with pytest.raises(ConfigError, match=r"lags_ps = \[20\.0\]: each must be from 0\.1 ps"):
        van_hove(paths, "Li", lags_ps=[20.0])
    with pytest.raises(ConfigError, match=r"lags_ps = \[1e\+30\]: each must be"):
        van_hove(paths, "Li", lags_ps=[1e30])
    with pytest.raises(ConfigError, match=r"up to half the cell, 10\.000 Å"):
        van_hove(paths, "Li", lags_ps=[1.0], r_max=12.0)
    with pytest.raises(DataError, match="2 frames are too few for a van Hove function"):
        van_hove(paths_of(brownian_walk(2, 3)), "Li", lags_ps=[0.1])


def test_density_counts_every_atom_once(brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(300, 6), CELL)
    for k, atoms in enumerate(frames):
        atoms.info["time_fs"] = 100.0 * k**2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a map needs no times, whatever they are
        result = density_map(frames, "Li", spacing=0.7)
    assert result.density.sum() * result.voxel_volume == pytest.approx(6.0)
    assert min(result.density.shape) >= 13 and len(result.host_symbols) == 20


def test_density_sits_on_the_sites_of_a_drifting_host(frames_of) -> None:
    """Two sites occupied 3 to 1, in a cell whose host drifts across the boundary."""
    rng = np.random.default_rng(0)
    other = np.array([0.25, 0.0, 0.2])
    on_second = rng.random(2000) < 0.25
    on_second[0] = False
    walk = (on_second[:, None] * other) @ CELL + rng.normal(size=(2000, 3)) * 0.05
    frames = frames_of(walk[:, None], CELL)
    for k, atoms in enumerate(frames):
        atoms.positions += np.array([0.001, 0.0, 0.0005]) * k @ CELL
        atoms.wrap()
    result = density_map(frames, "Li", spacing=0.5)
    site = np.linalg.solve(CELL.T, read_paths(frames, "Li", interval_fs=1.0).start[0] - walk[0])
    shape = np.array(result.density.shape)

    def share_near(fraction: np.ndarray) -> float:
        grid = (np.indices(shape).reshape(3, -1).T + 0.5) / shape - fraction
        near = np.linalg.norm((grid - np.round(grid)) @ CELL, axis=1) < 1.0
        return float(result.density.ravel()[near].sum() * result.voxel_volume)

    assert share_near(site) == pytest.approx(np.mean(~on_second), abs=0.01)
    assert share_near(site + other) == pytest.approx(np.mean(on_second), abs=0.01)


def test_folded_map_and_cube_file(tmp_path, brownian_walk, frames_of) -> None:
    base = frames_of(brownian_walk(100, 3), CELL, wrap=False)
    twice = [atoms.repeat((2, 1, 1)) for atoms in base]
    one = density_map(base, "Li", spacing=0.9)
    two = density_map(twice, "Li", spacing=0.9, fold=(2, 1, 1))
    assert one.density.shape == two.density.shape and len(two.host_symbols) == 20
    np.testing.assert_allclose(two.density, one.density, atol=1e-9)
    data, atoms = read_cube_data(str(one.write_cube(tmp_path / "li.cube")))
    np.testing.assert_allclose(data, one.density, atol=1e-4)
    np.testing.assert_allclose(atoms.cell.array, CELL, atol=1e-4)
    assert len(read(tmp_path / "li.cube")) == 20
    again = DensityMap.load(one.save(tmp_path / "map.npz"))
    np.testing.assert_array_equal(again.density, one.density)
    assert again.summary() == one.summary()


def test_the_points_of_a_cube_file_are_where_the_ion_is(tmp_path, frames_of) -> None:
    """Its points are the middles of voxels: at their corners the mean place would be off by half a voxel."""
    walk = np.random.default_rng(0).normal(size=(300, 1, 3)) * 0.2
    frames = frames_of(walk, CELL, wrap=False)
    place = np.mean([atoms.positions[0] for atoms in frames], axis=0)
    middle = np.array([0.5, 0.4, 0.6]) @ CELL
    for atoms in frames:
        atoms.positions += middle - place
    with open(density_map(frames, "Li", spacing=1.0).write_cube(tmp_path / "li.cube")) as handle:
        found = read_cube(handle)
    shares = found["data"] / found["data"].sum()
    points = found["origin"] + np.moveaxis(np.indices(shares.shape), 0, -1) @ found["spacing"]
    assert (shares[..., None] * points).sum(axis=(0, 1, 2)) == pytest.approx(middle, abs=0.1)


def test_column_density_in_the_picture_adds_up(brownian_walk, frames_of) -> None:
    result = density_map(frames_of(brownian_walk(100, 5), CELL), "Li")
    for axis in range(3):
        mesh = result.plot(axis=axis).collections[0]
        u, v = (k for k in range(3) if k != axis)
        area = np.linalg.norm(np.cross(CELL[u], CELL[v])) / mesh.get_array().size
        assert float(mesh.get_array().sum()) * area == pytest.approx(5.0)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_the_picture_shows_an_ion_where_it_is(order, frames_of) -> None:
    """Also in cells of the left hand, and seen along b, whose vectors in the picture are of the left hand."""
    cell, place = CELL[order], np.array([0.25, 0.5, 0.75])
    atoms = Atoms("LiS", scaled_positions=[place, [0.0, 0.0, 0.0]], cell=cell, pbc=True)
    result = density_map([atoms] * 3, "Li", spacing=0.5)
    for axis in range(3):
        u, v = (k for k in range(3) if k != axis)
        length, along = np.linalg.norm(cell[u]), cell[u] @ cell[v] / np.linalg.norm(cell[u])
        across = np.linalg.norm(cell[v] - along * cell[u] / length)
        mesh = result.plot(axis=axis).collections[0]
        corners, values = mesh.get_coordinates(), mesh.get_array()
        i, j = np.unravel_index(np.argmax(values), values.shape)
        middle = corners[i : i + 2, j : j + 2].reshape(4, 2).mean(axis=0)
        expected = np.array([place[u] * length + place[v] * along, place[v] * across])
        assert np.abs(middle - expected).max() < 0.5


def test_map_errors(brownian_walk, paths_of, frames_of) -> None:
    paths = paths_of(brownian_walk(50, 3))
    with pytest.raises(ConfigError, match="spacing = 0"):
        density_map(paths, "Li", spacing=0.0)
    frames = frames_of(brownian_walk(50, 3), CELL, wrap=False)
    for atoms in frames:
        atoms.pbc = (True, True, False)
    with pytest.raises(StructureError, match="periodic in three directions"):
        density_map(frames, "Li")
