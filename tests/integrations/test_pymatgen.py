"""Results as pymatgen's objects, and diffusion beside pymatgen-analysis-diffusion on one trajectory."""

import numpy as np
import pytest
from ase.build import bulk
from ase.units import GPa
from emt_cases import with_emt

from dpa2calc.applications import diffusion, elastic_constants, phonons, read_paths
from dpa2calc.errors import MissingDependencyError

REASON = "pymatgen is not installed (extra: pymatgen)"


@pytest.fixture(scope="module")
def copper():
    return with_emt(bulk("Cu", a=3.5903))


def test_phonons(copper):
    pytest.importorskip("pymatgen.phonon", reason=REASON)
    ours = phonons(copper, min_length=7.0, mesh=30.0, progress=False)
    structure, bands, dos = ours.to_pymatgen()
    assert structure.composition.reduced_formula == "Cu"
    assert bands.bands.max() == pytest.approx(ours.band_frequencies.max(), abs=1e-12)
    assert not bands.has_imaginary_freq()
    gamma = bands.labels_dict[r"\Gamma"]
    np.testing.assert_allclose(gamma.frac_coords, 0.0)
    np.testing.assert_allclose(gamma.lattice.matrix, 2 * np.pi * np.linalg.inv(ours.cell).T)
    # the path's length, which both measure on their own: ours in 1/Å, pymatgen's with 2 pi
    assert bands.distance[-1] == pytest.approx(2 * np.pi * ours.band_distances[-1], rel=1e-6)
    room = int(np.abs(ours.temperatures - 300.0).argmin())
    joule = 96485.33212  # J/mol per eV
    assert dos.cv(ours.temperatures[room]) == pytest.approx(ours.heat_capacity[room] * joule, rel=0.01)


def test_elastic_tensor(copper):
    pytest.importorskip("pymatgen.analysis.elasticity", reason=REASON)
    ours = elastic_constants(copper, progress=False)
    tensor = ours.to_pymatgen()
    np.testing.assert_allclose(tensor.voigt, ours.tensor, atol=1e-9)
    for theirs, name in (
        (tensor.k_voigt, "bulk_voigt"),
        (tensor.k_reuss, "bulk_reuss"),
        (tensor.g_vrh, "shear_hill"),
        (tensor.universal_anisotropy, "anisotropy"),
    ):
        assert theirs == pytest.approx(ours.moduli[name], rel=1e-9), name
    assert GPa * tensor.k_vrh > 0


def test_diffusion_beside_pymatgen_on_one_trajectory(brownian_frames):
    """The coefficients agree within our error; the error that pymatgen quotes is far smaller.

    It is that of a line through points that share their frames, as if they were independent.
    """
    pytest.importorskip("pymatgen.analysis.diffusion.analyzer", reason=REASON)
    from pymatgen.analysis.diffusion.analyzer import DiffusionAnalyzer
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = brownian_frames(seed=3)
    paths = read_paths(frames, "Li", interval_fs=100)
    ours = diffusion(paths, "Li", temperature=600, charge=1)
    # min_obs: lags to a tenth of the trajectory for 16 Li, as ours
    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in frames]
    theirs = DiffusionAnalyzer.from_structures(
        structures, "Li", 600, time_step=100, step_skip=1, smoothed="max", min_obs=160
    )
    assert 1e4 * theirs.diffusivity == pytest.approx(ours.tracer, abs=3 * ours.tracer_error)
    assert 1e4 * theirs.diffusivity_std_dev < 0.2 * ours.tracer_error
    # the same analyzer on our paths: the same squares of displacements
    again = paths.to_pymatgen(600, smoothed="max", min_obs=160)
    np.testing.assert_allclose(again.msd, theirs.msd, rtol=1e-6, atol=1e-9)
    assert again.diffusivity == pytest.approx(theirs.diffusivity, rel=1e-6)


@pytest.fixture
def brownian_frames():
    """frames(seed): 16 Li on random walks (0.1 Å²/ps, 400 frames of 0.1 ps), wrapped, and 4 S at rest."""

    def make(seed):
        rng = np.random.default_rng(seed)
        atoms = bulk("Cu", "sc", a=7.0).repeat((2, 2, 5))
        atoms.symbols = ["Li"] * 16 + ["S"] * 4
        walk = np.cumsum(rng.normal(size=(400, 16, 3)) * np.sqrt(2 * 0.1 * 0.1), axis=0)
        frames = []
        for moved in walk:
            frame = atoms.copy()
            frame.positions[:16] += moved
            frame.wrap()
            frames.append(frame)
        return frames

    return make


def test_without_pymatgen_the_extra_is_named(copper, monkeypatch):
    import sys

    for name in ("pymatgen.core", "pymatgen.analysis.elasticity", "pymatgen"):
        monkeypatch.setitem(sys.modules, name, None)
    ours = elastic_constants(copper, relax="fixed", relax_ions=False, progress=False)
    with pytest.raises(MissingDependencyError, match=r"dpa2calc\[pymatgen\]"):
        ours.to_pymatgen()
