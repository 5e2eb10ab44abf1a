"""Unwrapping: known walks through boundaries of fixed and changing cells, drift, and what must be refused."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from scipy.spatial.transform import Rotation

from dpa2calc.applications import Frames, Paths, diffusion, read_paths
from dpa2calc.errors import ConfigError, DataError, ElementError, StructureError

CELLS = {
    "cubic": 6.0 * np.eye(3),
    "triclinic": np.array([[6.0, 0.0, 0.0], [2.5, 7.0, 0.0], [-2.0, 3.0, 6.5]]),
    "very skewed": np.array([[6.0, 0.0, 0.0], [14.0, 7.0, 0.0], [-9.0, 11.0, 6.5]]),
    "left-handed": np.array([[0.0, 6.0, 0.0], [6.0, 0.0, 0.0], [1.0, 1.0, 7.0]]),
}


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("wrap", [True, False])
def test_walk_through_boundaries_comes_back_whole(name: str, wrap: bool, brownian_walk, frames_of) -> None:
    walk = brownian_walk(300, 5, coefficient=0.5)
    assert np.abs(walk).max() > 6.0
    paths = read_paths(frames_of(walk, CELLS[name], wrap=wrap), "Li", interval_fs=100.0)
    np.testing.assert_allclose(paths.displacements, walk, atol=1e-9)
    assert paths.drift == "framework" and paths.duration == pytest.approx(29.9)


def test_slab_is_unwrapped_only_where_it_is_periodic(brownian_walk) -> None:
    walk = brownian_walk(200, 4, coefficient=0.5)
    frames = []
    for moved in walk:
        frames.append(Atoms("Li4S", positions=[*moved, [0, 0, 0]], cell=[5, 6, 0], pbc=[True, True, False]))
        frames[-1].wrap()
    paths = read_paths(frames, "Li", interval_fs=1.0)
    np.testing.assert_allclose(paths.displacements, walk, atol=1e-9)
    assert paths.volume == 0.0


@pytest.mark.parametrize("drift, expected", [("framework", 0.0), ("all", None), ("none", 1.0)])
def test_drift_of_the_frame_is_taken_off(drift: str, expected, brownian_walk, frames_of) -> None:
    walk = brownian_walk(100, 3, coefficient=0.2)
    frames = frames_of(walk, 8.0 * np.eye(3))
    drift_path = np.linspace(0, 1, 100)[:, None] * [30.0, -11.0, 7.0]
    for atoms, shift in zip(frames, drift_path):
        atoms.positions += shift
        atoms.wrap()
    paths = read_paths(frames, "Li", interval_fs=1.0, drift=drift)
    if expected is not None:
        np.testing.assert_allclose(paths.displacements, walk + expected * drift_path[:, None], atol=1e-9)
    else:  # the mass centre of everything stands still
        masses = frames[0].get_masses()
        centre = masses[:3] @ walk / masses.sum()
        np.testing.assert_allclose(paths.displacements, walk - centre[:, None], atol=1e-9)
    np.testing.assert_allclose(paths.drift_path[-1], 0.0 if drift == "none" else drift_path[-1], atol=2.0)


@pytest.mark.parametrize("wrap", [True, False])
def test_changing_cell_adds_no_motion(wrap: bool) -> None:
    # Atoms that sit still in fractional coordinates do not move, however far away they started.
    rng = np.random.default_rng(3)
    start = rng.random((40, 3))
    lengths = 10.0 + 0.3 * rng.normal(size=2000).cumsum() / 40
    far = np.zeros((40, 3)) if wrap else rng.integers(-30, 30, size=(40, 3))
    frames = [Atoms("Li40", cell=[a] * 3, pbc=True, scaled_positions=start) for a in lengths]
    for atoms in frames:
        atoms.positions += far @ atoms.cell.array
    paths = read_paths(frames, "Li", interval_fs=1.0, drift="none")
    np.testing.assert_allclose(paths.displacements, 0.0, atol=1e-9)
    np.testing.assert_allclose(paths.start, (start + far) * lengths.mean(), atol=1e-9)
    np.testing.assert_allclose(paths.cell, lengths.mean() * np.eye(3))


def breathing(n_frames: int, size: float, seed: int, shear: bool = False) -> np.ndarray:
    """Deformations (n_frames, 3, 3) that fluctuate by `size` with a memory of ten frames."""
    rng, state, out = np.random.default_rng(seed), np.zeros((3, 3)), []
    for _ in range(n_frames):
        kick = rng.normal(size=(3, 3)) if shear else rng.normal() * np.eye(3)
        state = 0.9 * state + size * np.sqrt(1 - 0.9**2) * kick
        out.append(np.eye(3) + state)
    return np.array(out)


def crystal(deformations: np.ndarray, shift: float, wrap: str, seed: int = 1) -> list[Atoms]:
    """LiF whose 64 atoms vibrate by 0.08 Å and never leave their sites, in a cell that breathes."""
    rng, base, frames = np.random.default_rng(seed), bulk("LiF", "rocksalt", a=4.03, cubic=True).repeat(2), []
    base.positions += shift
    for deformation in deformations:
        atoms = base.copy()
        atoms.set_cell(base.cell.array @ deformation, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        if wrap == "wrapped":
            atoms.wrap()
        elif wrap == "centred":
            atoms.positions = (atoms.get_scaled_positions() - 0.5) @ atoms.cell.array
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("size", [0.001, 0.003, 0.01])
@pytest.mark.parametrize("shear", [False, True])
def test_crystal_in_a_breathing_cell_does_not_diffuse(size: float, shear: bool) -> None:
    deformations = breathing(300, size, seed=7, shear=shear)
    cases = [(0.0, "wrapped"), (1.0, "wrapped"), (0.0, "centred"), (0.0, "whole")]
    found = [read_paths(crystal(deformations, shift, wrap), "Li", interval_fs=100.0) for shift, wrap in cases]
    for paths in found:
        # origin and wrapping make no difference, and no atom gets further than its vibration takes it
        np.testing.assert_allclose(paths.displacements, found[0].displacements, atol=1e-9)
        assert np.abs(paths.displacements).max() < 9 * 0.08
        result = diffusion(paths, "Li", temperature=500, charge=1)
        assert abs(result.tracer) < 4 * result.tracer_error < 2e-3
        assert abs(result.conductivity) < 4 * result.conductivity_error


@pytest.mark.parametrize(
    "size, scaled", [(0.001, True), (0.01, True), (0.03, True), (0.001, False), (0.003, False), (0.01, False)]
)
def test_known_coefficient_in_a_fluctuating_cell(size: float, scaled: bool) -> None:
    """A walk is unbiased, whether the barostat scales the coordinates or only wrapping knows the cell."""
    coefficient, n_frames, rng = 0.3, 2000, np.random.default_rng(4)
    lengths = 12.0 * breathing(n_frames, size, seed=5)[:, 0, 0]
    positions, frames = rng.random((60, 3)) * lengths[0], []
    for k, length in enumerate(lengths):
        if k:
            positions = positions * (length / lengths[k - 1] if scaled else 1.0)
            positions = (positions + rng.normal(size=(60, 3)) * np.sqrt(2 * coefficient * 0.1)) % length
        frames.append(Atoms("Li60", positions=positions, cell=[length] * 3, pbc=True))
    paths = read_paths(frames, "Li", interval_fs=100.0, drift="none")
    far = paths.displacements[50:] - paths.displacements[:-50]
    assert np.mean(far**2) / (2 * 5.0) == pytest.approx(coefficient, rel=0.03)
    if scaled:
        step = np.diff(paths.displacements, axis=0)
        assert np.mean(step**2) / (2 * 0.1) == pytest.approx(coefficient * (1 + 3 * size**2), rel=0.01)


def test_flipped_box_is_the_same_lattice(brownian_walk, frames_of) -> None:
    walk = brownian_walk(200, 5, coefficient=0.3)
    frames = frames_of(walk, CELLS["triclinic"], wrap=False)
    for k, atoms in enumerate(frames):
        if k % 50 > 25:  # other vectors of the same lattice, as LAMMPS takes when a box tilts too far
            atoms.set_cell(np.array([[1, 0, 0], [-1, 1, 0], [0, 0, 1]]) @ atoms.cell.array)
        atoms.wrap()
    paths = read_paths(frames, "Li", interval_fs=100.0)
    np.testing.assert_allclose(paths.displacements, walk, atol=1e-9)
    np.testing.assert_allclose(paths.cell, CELLS["triclinic"])
    frames[100].set_cell(2 * frames[100].cell.array)
    with pytest.raises(DataError, match=r"cell changes from .* between frames 99 and 100.*save frames more"):
        read_paths(frames, "Li", interval_fs=100.0)


@pytest.mark.parametrize(
    "cell, how",
    [("cubic", "no cell"), ("cubic", "pbc off"), ("cubic", "slab"), ("triclinic", "no cell"),
     ("triclinic", "pbc off")],
)  # fmt: skip
def test_wrapped_coordinates_without_a_cell_are_refused(cell, how, brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(100, 8, coefficient=0.05), CELLS[cell])
    for atoms in frames:
        atoms.pbc = [True, True, False] if how == "slab" else False
        if how == "no cell":
            atoms.cell = None
    with pytest.raises(DataError, match=r"jump by about .* Å along .* is missing here.*wrapped=False"):
        read_paths(frames, "Li", interval_fs=100.0)
    assert read_paths(frames, "Li", interval_fs=100.0, wrapped=False).n_frames == 100


def test_free_motion_without_a_cell_is_no_wrapping(brownian_walk, frames_of) -> None:
    """Single atoms, pairs, tumbling molecules, clusters and evaporating atoms are taken as they are."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        for n in (1, 2, 3, 40):
            walk = brownian_walk(60, n, coefficient=0.3, seed=seed)
            frames = [Atoms(f"Li{n}", positions=p) for p in walk + rng.random((n, 3)) * n]
            paths = read_paths(frames, "Li", interval_fs=1.0, drift="none")
            np.testing.assert_allclose(paths.displacements, walk, atol=1e-9)
            assert "no periodic cell: coordinates taken as unwrapped" in paths.summary()
    molecule = Atoms("Li2", positions=[[0.0, 0, 0], [2.7, 0, 0]])
    tumbling = []
    for turn in Rotation.random(80, rng=rng).as_matrix():
        tumbling.append(Atoms("Li2", positions=molecule.positions @ turn))
    assert read_paths(tumbling, "Li", interval_fs=1.0, drift="none").n_frames == 80


def test_steps_over_half_a_cell_are_refused_unless_never_wrapped(brownian_walk, frames_of) -> None:
    walk = brownian_walk(60, 3, coefficient=30.0)
    message = r"atom \d+ \(Li\) moves by 0\.4\d of the cell .*Save frames more often.*wrapped=False"
    with pytest.raises(DataError, match=message):
        read_paths(frames_of(walk, CELLS["cubic"]), "Li", interval_fs=100.0)
    free = read_paths(frames_of(walk, CELLS["cubic"], wrap=False), "Li", interval_fs=100.0, wrapped=False)
    np.testing.assert_allclose(free.displacements, walk, atol=1e-9)


def test_time_comes_from_the_frames_or_the_caller(tmp_path, brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(30, 2), CELLS["cubic"])
    with pytest.raises(ConfigError, match="does not store the time of its frames"):
        read_paths(frames, "Li")
    for k, atoms in enumerate(frames):
        atoms.info["time_fs"] = 20.0 * k
    write(tmp_path / "a.traj", frames)
    assert read_paths(tmp_path / "a.traj", "Li").interval_ps == pytest.approx(0.02)
    assert read_paths(Frames(tmp_path / "a.traj", step=3), "Li").interval_ps == pytest.approx(0.06)
    frames[5].info["time_fs"] = 101.0
    with pytest.raises(DataError, match="time between frames runs from 19 to 21 fs, but it must be even"):
        read_paths(frames, "Li")
    frames[5].info["time_fs"] = "late"
    with pytest.raises(ConfigError, match=r"time of its frames .* as a number, but as 'late'; give interval"):
        read_paths(frames, "Li")


def test_paths_that_were_read_otherwise_are_not_taken_for_those_asked_for(brownian_walk, frames_of) -> None:
    paths = read_paths(frames_of(brownian_walk(60, 2), CELLS["cubic"]), "Li", interval_fs=10.0, drift="all")
    assert (
        diffusion(paths, "Li", interval_fs=10.0, drift="all").drift == diffusion(paths, "Li").drift == "all"
    )
    for option, text in (
        ({"interval_fs": 20.0}, r"interval_fs = 20\.0, but these paths were read with 10\.0"),
        ({"drift": "none"}, "drift = 'none', but these paths were read with 'all'"),
        ({"wrapped": False}, "wrapped = False, but these paths were read with True"),
    ):
        with pytest.raises(ConfigError, match=text):
            diffusion(paths, "Li", **option)


def test_saved_paths_are_the_same(tmp_path, brownian_walk, frames_of) -> None:
    paths = read_paths(frames_of(brownian_walk(30, 2), CELLS["triclinic"]), "Li", interval_fs=1.0)
    again = Paths.load(paths.save(tmp_path / "paths.npz"))
    np.testing.assert_array_equal(again.displacements, paths.displacements)
    assert again.host_symbols == paths.host_symbols and again.summary() == paths.summary()


def test_errors_say_what_to_do(brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(30, 2), CELLS["cubic"])
    with pytest.raises(ElementError, match="has no Na atom; it has Li S"):
        read_paths(frames, "Na", interval_fs=1.0)
    with pytest.raises(ConfigError, match="interval_fs = -1"):
        read_paths(frames, "Li", interval_fs=-1.0)
    with pytest.raises(ConfigError, match="drift = 'host' is not allowed; allowed: auto, framework"):
        read_paths(frames, "Li", interval_fs=1.0, drift="host")
    with pytest.raises(StructureError, match=r'holds only Li, so there is no framework.*drift="all"'):
        read_paths([atoms[:2] for atoms in frames], "Li", interval_fs=1.0, drift="framework")
    with pytest.raises(DataError, match="1 frame; a path needs at least 2"):
        read_paths(frames[0], "Li", interval_fs=1.0)
    with pytest.raises(DataError, match="frame 2 has other atoms than frame 0, or another order"):
        read_paths([frames[0], frames[1], frames[2][::-1]], "Li", interval_fs=1.0)
    with pytest.raises(ConfigError, match="paths of Li, not of S"):
        read_paths(read_paths(frames, "Li", interval_fs=1.0), "S")


def test_an_interval_that_the_frames_do_not_have_is_taken_with_a_warning(brownian_walk, frames_of):
    frames = frames_of(brownian_walk(30, 2), CELLS["cubic"])
    for number, atoms in enumerate(frames):
        atoms.info["time_fs"] = 100.0 * number
    with pytest.warns(UserWarning, match=r"interval_fs = 50, but the frames say .* 100 fs apart; 50 fs"):
        assert read_paths(frames, "Li", interval_fs=50.0).interval_ps == pytest.approx(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_paths(frames, "Li", interval_fs=100.0)
        read_paths(Frames(frames, step=2), "Li", interval_fs=200.0)
