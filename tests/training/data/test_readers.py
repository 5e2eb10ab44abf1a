"""Every format gives the frames that went in."""

import gzip
import json
import zlib

import ase.db
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.units import Hartree
from deepmd_system import write_system

from dpa2calc.errors import DataError
from dpa2calc.files.structures import frame_slice
from dpa2calc.training.data.dataset import Dataset, LabelKeys
from dpa2calc.training.data.readers import iread_atoms


def _compare(data, frames):
    assert len(data) == len(frames)
    for got, want in zip(data, frames):
        np.testing.assert_array_equal(got.numbers, want.numbers)
        np.testing.assert_allclose(got.positions, want.positions, atol=1e-7)
        np.testing.assert_allclose(got.cell, want.cell.array, atol=1e-7)
        np.testing.assert_array_equal(got.pbc, want.pbc)
        assert got.energy == pytest.approx(want.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(got.forces, want.get_forces(), atol=1e-7)
        if want.pbc.all():
            np.testing.assert_allclose(got.stress, want.get_stress(voigt=False), atol=1e-8)


def test_deepmd_folder_and_folder_of_folders(tmp_path, lj_frames):
    one, two = lj_frames(4), lj_frames(3, seed=5, repeat=2)
    write_system(tmp_path / "all/a", one)
    write_system(tmp_path / "all/b", two)
    _compare(Dataset.read(tmp_path / "all/a"), one)
    data = Dataset.read(tmp_path / "all")
    _compare(data, one + two)
    assert data[0].group.endswith("all/a")
    write_system(tmp_path / "all/a/more", two)  # deepmd-kit takes systems inside systems, too
    _compare(Dataset.read(tmp_path / "all/a"), one + two)


def test_deepmd_mixed_types_with_padding(tmp_path, lj_frames):
    frames = [*lj_frames(2), *lj_frames(2, symbol="Ne")]
    write_system(tmp_path / "m", frames, mixed=True)
    _compare(Dataset.read(tmp_path / "m"), frames)
    part = tmp_path / "m/set.000"
    types = np.load(part / "real_atom_types.npy")
    types[1, 3] = -1  # deepmd-kit pads smaller frames with type -1
    np.save(part / "real_atom_types.npy", types)
    assert Dataset.read(tmp_path / "m")[1].n_atoms == 3


def test_deepmd_hdf5(tmp_path, lj_frames):
    frames = lj_frames(3)
    write_system(tmp_path / "s", frames)
    with h5py.File(tmp_path / "d.hdf5", "w") as handle:
        for name in ("x", "y", "y/more"):
            group = handle.create_group(name)
            group["type.raw"] = np.loadtxt(tmp_path / "s/type.raw", dtype=int)
            group["type_map.raw"] = np.array((tmp_path / "s/type_map.raw").read_text().split(), dtype="S")
            for part in ("coord", "box", "energy", "force", "virial"):
                group[f"set.000/{part}.npy"] = np.load(tmp_path / f"s/set.000/{part}.npy")
    _compare(Dataset.read(tmp_path / "d.hdf5"), frames * 3)
    _compare(Dataset.read(f"{tmp_path}/d.hdf5#/y"), frames * 2)
    _compare(Dataset.read(f"{tmp_path}/d.hdf5#/y/more"), frames)
    with pytest.raises(DataError, match=r"no group '/z'; it has x, y"):
        Dataset.read(f"{tmp_path}/d.hdf5#/z")


def test_deepmd_errors_name_the_array(tmp_path, lj_frames):
    write_system(tmp_path / "s", lj_frames(3))
    np.save(tmp_path / "s/set.000/force.npy", np.zeros(5))
    with pytest.raises(DataError, match=r"set\.000/force\.npy holds 5 numbers, expected 36"):
        Dataset.read(tmp_path / "s")
    (tmp_path / "s/set.000/box.npy").unlink()
    with pytest.raises(DataError, match=r"mark a system without a cell with an empty file 'nopbc'"):
        Dataset.read(tmp_path / "s")
    (tmp_path / "s/type_map.raw").unlink()
    with pytest.raises(DataError, match=r"has no type_map\.raw"):
        Dataset.read(tmp_path / "s")


def test_ani_1x_is_converted_from_hartree(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "ani1x-release.h5", "w") as handle:
        for formula, numbers in (("C1H4", [6, 1, 1, 1, 1]), ("H2O1", [8, 1, 1])):
            group = handle.create_group(formula)
            group["atomic_numbers"] = np.array(numbers, dtype=np.uint8)
            group["coordinates"] = rng.normal(size=(3, len(numbers), 3)).astype(np.float32)
            energy = np.array([-40.5, -40.4, np.nan])
            group["wb97x_dz.energy"] = energy
            group["wb97x_dz.forces"] = np.full((3, len(numbers), 3), 0.01, dtype=np.float32)
    data = Dataset.read(tmp_path / "ani1x-release.h5")
    assert len(data) == 6 and data.elements == ("H", "C", "O")
    assert data[0].energy == pytest.approx(-40.5 * Hartree) and data[2].energy is None
    np.testing.assert_allclose(data[0].forces, 0.01 * Hartree, rtol=1e-6)
    assert data[4].group == "H2O1" and not data[0].pbc.any()


def test_transition1x_splits(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "t1x.h5", "w") as handle:
        for split, reactions in (("data", ("rxn0", "rxn1")), ("train", ("rxn0",)), ("test", ("rxn1",))):
            for name in reactions:
                group = handle.create_group(f"{split}/C1H4/{name}")
                group["atomic_numbers"] = np.array([6, 1, 1, 1, 1])
                for part, n in ((group, 4), (group.create_group("reactant"), 1)):
                    part["positions"] = rng.normal(size=(n, 5, 3))
                    part["wB97x_6-31G(d).energy"] = np.arange(n) - 1000.0
                    part["wB97x_6-31G(d).forces"] = np.ones((n, 5, 3))
    data = Dataset.read(tmp_path / "t1x.h5")
    assert len(data) == 10 and data[0].energy == -1000.0 and data[4].energy == -997.0
    train = Dataset.read(f"{tmp_path}/t1x.h5#train")
    assert len(train) == 5 and {f.group for f in train} == {"C1H4/rxn0"}
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle.create_group("a/b")
    with pytest.raises(DataError, match=r"none of the known layouts .* groups are a; a file of a layout"):
        Dataset.read(tmp_path / "other.h5")
    (tmp_path / "no.h5").write_text("x")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        Dataset.read(tmp_path / "no.h5")


@pytest.mark.parametrize("kind", ["db", "json"])
def test_ase_database(tmp_path, lj_frames, kind):
    frames = lj_frames(5)
    with ase.db.connect(tmp_path / f"a.{kind}") as database:
        for number, atoms in enumerate(frames):
            database.write(atoms, group=f"g{number}")
    data = Dataset.read(tmp_path / f"a.{kind}")
    _compare(data, frames)
    assert data[3].group == "g3"
    with ase.db.connect(tmp_path / f"own.{kind}") as database:  # labels under other names
        for atoms in frames:
            labels = {"dft_energy": atoms.get_potential_energy()}
            database.write(Atoms(atoms), key_value_pairs=labels, data={"dft_forces": atoms.get_forces()})
    with_names = Dataset.read(
        tmp_path / f"own.{kind}", keys=LabelKeys(energy="dft_energy", forces="dft_forces", stress="")
    )
    assert [f.energy for f in with_names] == [f.energy for f in data]
    assert np.array_equal(with_names[2].forces, data[2].forces)
    (tmp_path / f"bad.{kind}").write_text("not a database at all")
    with pytest.raises(DataError, match=rf"bad.{kind} is not an ASE .*; a file of a layout of its own"):
        Dataset.read(tmp_path / f"bad.{kind}")


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.db", "system"])
@pytest.mark.parametrize("index", ["1", "-2", "::2", "-3:", "::-1", "3:1"])
def test_an_index_means_the_same_in_every_kind_of_file(tmp_path, lj_frames, name, index):
    frames = lj_frames(5)
    if name == "system":
        write_system(tmp_path / name, frames)
    else:
        write(tmp_path / name, frames)
    found = [atoms.positions for atoms in iread_atoms(tmp_path / name, index)]
    expected = [atoms.positions for atoms in frames][frame_slice(index)]
    assert len(found) == len(expected)
    np.testing.assert_allclose(np.reshape(found, (-1, 3)), np.reshape(expected, (-1, 3)), atol=1e-7)


def test_lmdb_rows_of_json_and_never_pickles(tmp_path, lj_frames):
    lmdb = pytest.importorskip("lmdb")
    frames = lj_frames(12)
    with lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False, map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"nextid", zlib.compress(b"13"))
            for number, atoms in enumerate(frames, start=1):
                row = {
                    "numbers": atoms.numbers.tolist(),
                    "positions": {"__ndarray__": [[4, 3], "float64", atoms.positions.ravel().tolist()]},
                    "cell": atoms.cell.array.tolist(),
                    "pbc": [True] * 3,
                    "energy": atoms.get_potential_energy(),
                    "forces": atoms.get_forces().tolist(),
                    "stress": atoms.get_stress().tolist(),
                    "data": {"dft_forces": {"__ndarray__": [[4, 3], "float64", [0.5] * 12]}, "energy": 7.0},
                    "key_value_pairs": {"dft_energy": 2.0},
                }
                transaction.put(str(number).encode(), zlib.compress(json.dumps(row).encode()))
    _compare(Dataset.read(tmp_path / "a.aselmdb"), frames)
    own = Dataset.read(tmp_path / "a.aselmdb", keys=LabelKeys(energy="dft_energy", forces="dft_forces"))
    assert own[5].energy == 2.0 and np.array_equal(own[5].forces, np.full((4, 3), 0.5))
    with lmdb.open(str(tmp_path / "old.lmdb"), subdir=False, map_size=2**20) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"0", b"\x80\x04cos\nsystem\n")
    with pytest.raises(DataError, match=r"row 0 is not compressed JSON .*pickles"):
        Dataset.read(tmp_path / "old.lmdb")


def _packed(values, dtype="float64"):
    array = np.asarray(values, dtype=dtype)
    return {"type": dtype, "shape": list(array.shape), "data": array.tobytes()}


def test_deepmd_lmdb(tmp_path, lj_frames):
    """As deepmd-kit 3.2 writes them: msgpack, in either spelling of the names, frames of any size."""
    lmdb, msgpack = pytest.importorskip("lmdb"), pytest.importorskip("msgpack")
    frames = lj_frames(12)
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            about = {"nframes": 12, "frame_idx_fmt": "06d", "type_map": ["H", "Ar"]}
            transaction.put(b"__metadata__", msgpack.packb(about))
            for number, atoms in enumerate(frames):
                virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
                plural = "s" if number % 2 else ""
                row = {
                    "atom_types" if plural else "atype": _packed([1] * len(atoms), "int32"),
                    f"coord{plural}": _packed(atoms.positions),
                    "cells" if plural else "box": _packed(atoms.cell.array * (number != 5)),
                    "energies" if plural else "energy": _packed(atoms.get_potential_energy()),
                    f"force{plural}": _packed(atoms.get_forces()),
                    f"virial{plural}": _packed(virial.ravel()),
                }
                transaction.put(f"{number:06d}".encode(), msgpack.packb(row))
    data = Dataset.read(tmp_path / "a.lmdb")
    _compare(data.subset([*range(5), *range(6, 12)]), [*frames[:5], *frames[6:]])
    assert not data[5].pbc.any() and data[5].energy == frames[5].get_potential_energy()
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            row = {"atype": _packed([1] * 4, "int32"), "coord": _packed(frames[0].positions)}
            unknown = {**row, "energy": 0.0, "find_energy": 0.0, "force": _packed(frames[0].get_forces())}
            transaction.put(b"000000", msgpack.packb(unknown))
            transaction.put(b"000001", msgpack.packb({**row, "force": _packed([1.0, 2.0])}))
    with pytest.raises(DataError, match=r"a\.lmdb, frame 1: forces holds 2 numbers, expected 12"):
        Dataset.read(tmp_path / "a.lmdb")
    first = next(iread_atoms(tmp_path / "a.lmdb"))
    assert "energy" not in first.info and "forces" in first.arrays and not first.pbc.any()


def test_other_formats_go_to_ase(tmp_path, lj_frames):
    atoms = lj_frames(1)[0]
    write(tmp_path / "POSCAR", atoms, format="vasp")
    assert Dataset.read(tmp_path / "POSCAR")[0].energy is None
    write(tmp_path / "x.traj", lj_frames(3))
    _compare(Dataset.read(tmp_path / "x.traj"), lj_frames(3))
    write(tmp_path / "y.json", lj_frames(2))
    (tmp_path / "y.json.gz").write_bytes(gzip.compress((tmp_path / "y.json").read_bytes()))
    _compare(Dataset.read(tmp_path / "y.json.gz"), lj_frames(2))
    with pytest.raises(DataError, match="cannot be read"):
        (tmp_path / "z.dat").write_text("1 2 3\n")
        Dataset.read(tmp_path / "z.dat")


def test_several_files_in_one_set(tmp_path, lj_frames):
    write(tmp_path / "a.extxyz", lj_frames(3))
    write(tmp_path / "b.xyz", lj_frames(2, seed=9), format="extxyz")
    data = Dataset.read([tmp_path / "a.extxyz", tmp_path / "b.xyz"], name="both")
    _compare(data, lj_frames(3) + lj_frames(2, seed=9))
    assert data[4].source.endswith("b.xyz, frame 1") and data.name == "both"
    assert isinstance(data[0].atoms(), Atoms)


def test_a_system_of_raw_files_is_told_what_makes_sets_of_them(tmp_path):
    for name, text in (("type.raw", "0 0"), ("type_map.raw", "H"), ("coord.raw", "0 0 0 0 0 1")):
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"has no set\.000 folder; `raw_to_set\.sh` of deepmd-kit, or dpdata"):
        Dataset.read(tmp_path)
