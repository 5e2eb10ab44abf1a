"""Files that are cut, foreign or of other programs: read right, or a DataError that names the file."""

import json

import ase.db
import h5py
import lmdb
import msgpack
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from deepmd_system import write_system

from dpa2calc.errors import DataError
from dpa2calc.training import Dataset
from dpa2calc.training.data.readers import iread_atoms


def frames(n=3):
    out = []
    for number in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=number)
        forces = np.random.default_rng(number).normal(size=(4, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(number), forces=forces)
        out.append(atoms)
    return out


def system(folder, n=3):
    part = write_system(folder, frames(n), virial=False) / "set.000"
    np.save(part / "fparam.npy", np.arange(2.0 * n).reshape(n, 2))
    np.save(part / "aparam.npy", np.arange(4.0 * n).reshape(n, 4))
    return folder


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["type.raw"], file["type_map.raw"] = np.zeros(4), [b"Cu"]
        part = file.create_group("set.000")
        part["coord.npy"] = np.array([a.positions.ravel() for a in frames()])
        part["box.npy"] = np.array([a.cell.array.ravel() for a in frames()])
        part["energy.npy"] = np.arange(3.0)
        part["force.npy"] = np.array([a.get_forces().ravel() for a in frames()])


def deepmd_lmdb(path, **changes):
    def packed(array):
        array = np.asarray(array, dtype=np.float64)
        return {"type": "<f8", "shape": list(array.shape), "data": array.tobytes()}

    with lmdb.open(str(path), subdir=False, map_size=2**22) as file, file.begin(write=True) as transaction:
        about = {"nframes": 3, "type_map": ["Cu"], "frame_idx_fmt": "012d"}
        transaction.put(b"__metadata__", msgpack.packb(about))
        for number, atoms in enumerate(frames()):
            row = {
                "coords": packed(atoms.positions),
                "atom_types": packed(np.zeros(4)),
                "cells": packed(atoms.cell.array),
                "energies": packed(number),
                "forces": packed(atoms.get_forces()),
                "fparam": packed([2.0 * number, 2.0 * number + 1]),
                "aparam": packed(4.0 * number + np.arange(4.0)),
            }
            row = {**row, **changes}
            transaction.put(f"{number:012d}".encode(), msgpack.packb(row))


def ase_lmdb(path):
    import zlib

    with lmdb.open(str(path), subdir=False, map_size=2**22) as file, file.begin(write=True) as transaction:
        for number, a in enumerate(frames(), start=1):
            row = {
                "numbers": a.numbers.tolist(),
                "positions": a.positions.tolist(),
                "cell": a.cell.array.tolist(),
                "pbc": [True] * 3,
                "energy": number - 1.0,
                "forces": a.get_forces().tolist(),
            }
            transaction.put(str(number).encode(), zlib.compress(json.dumps(row).encode()))


def database(path):
    with ase.db.connect(path) as file:
        for atoms in frames():
            file.write(atoms)


MAKERS = {
    "a.h5": hdf5,
    "a.lmdb": deepmd_lmdb,
    "a.aselmdb": ase_lmdb,
    "a.db": database,
    "a.json": database,
    "a.traj": lambda path: write(path, frames()),
    "a.extxyz": lambda path: write(path, frames()),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, name):
    MAKERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    assert [f.energy for f in Dataset.read(tmp_path / name)] == [0.0, 1.0, 2.0]
    rng = np.random.default_rng(0)
    # extended XYZ cut between two frames is a shorter file, and a cut last digit cannot be seen
    lengths = [0, 1, 17, *rng.integers(18, max(len(whole) - 40, 19), size=6).tolist()]
    for number, length in enumerate(lengths):
        path = tmp_path / f"cut-{number}-{name}"
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=path.name):
            Dataset.read(path)


@pytest.mark.parametrize("name", MAKERS)
def test_a_foreign_file_is_refused_by_name(tmp_path, name):
    for number, content in enumerate([b"not what you think\n" * 50, bytes(range(256)) * 40]):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            Dataset.read(path)


def test_a_whole_system_is_read_with_its_parameters(tmp_path):
    deepmd_lmdb(tmp_path / "a.lmdb")
    for path in (system(tmp_path / "s"), tmp_path / "a.lmdb"):
        data = Dataset.read(path)
        np.testing.assert_array_equal([f.fparam for f in data], np.arange(6.0).reshape(3, 2))
        np.testing.assert_array_equal([f.aparam[:, 0] for f in data], np.arange(12.0).reshape(3, 4))


def cut(path):
    path.write_bytes(path.read_bytes()[:150])


def head_only(path):
    path.write_bytes(path.read_bytes()[:20])


def unmatched(path):
    path.write_bytes(path.read_bytes().replace(b"        ", b"   }    ", 1))


def emptied(path):
    path.write_bytes(b"")


def objects(path):
    np.save(path, np.array([None] * 3, dtype=object), allow_pickle=True)


def texts(path):
    np.save(path, np.array(["a", "b", "c"]))


def complex_numbers(path):
    np.save(path, np.zeros(3, dtype=complex))


def as_text(path):
    path.write_text("0.0 0.0 0.0\n" * 3)


def endless(path):
    with open(path, "wb") as handle:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 12)}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(bytes(96))


def scalar(path):
    np.save(path, np.float64(1.0))


@pytest.mark.parametrize(
    "spoil", [cut, head_only, unmatched, emptied, objects, texts, complex_numbers, as_text, endless, scalar]
)
@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "fparam", "aparam"])
def test_a_spoiled_array_is_named(tmp_path, name, spoil):
    path = system(tmp_path / "s") / "set.000" / f"{name}.npy"
    spoil(path)
    with pytest.raises(DataError, match=rf"set.000.*{name}.npy"):
        Dataset.read(tmp_path / "s")


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "<f2", "<u1"])
def test_numbers_of_other_types_are_read(tmp_path, dtype):
    folder = system(tmp_path / "s")
    np.save(folder / "set.000" / "energy.npy", np.array([1, 2, 3], dtype=dtype))
    assert [f.energy for f in Dataset.read(folder)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "text",
    [
        "0\n0\n0\n0\n",
        "0.00000e+00\n" * 4,
        "0.0D+00 " * 4,
        "\ufeff0\r\n0\r\n0\r\n0",
        "+0 -0 0. 0e0",
    ],
)
def test_types_in_any_spelling(tmp_path, text):
    folder = system(tmp_path / "s")
    (folder / "type.raw").write_bytes(text.encode())
    assert Dataset.read(folder)[0].numbers.tolist() == [29] * 4


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("type.raw", "0\n0.5\n0\n0\n", "type.raw must hold the atoms' types, whole numbers"),
        ("type.raw", "Cu Cu Cu Cu", "type.raw must hold"),
        ("type.raw", "nan 0 0 0", "type.raw must hold"),
        ("type.raw", "-1 0 0 0", "frame 0: a type outside type_map.raw"),
        ("type.raw", "0 0 0", "coord.npy holds 36 numbers, expected 27"),
        ("type_map.raw", "Copper", "type_map.raw names Copper, which are no elements"),
    ],
)
def test_wrong_types_are_named(tmp_path, file, text, message):
    folder = system(tmp_path / "s")
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        Dataset.read(folder)


def test_names_that_no_atom_has_may_be_anything(tmp_path):
    folder = system(tmp_path / "s")
    (folder / "type_map.raw").write_text("Cu Dummy")
    assert Dataset.read(folder).elements == ("Cu",)
    (folder / "type.raw").write_text("0 1 0 0")
    with pytest.raises(DataError, match=r"type_map.raw names Dummy, which are no elements"):
        Dataset.read(folder)


def test_deuterium_in_a_type_map_is_hydrogen_with_its_mass(tmp_path):
    folder = system(tmp_path / "s")
    (folder / "type_map.raw").write_text("D O")
    (folder / "type.raw").write_text("0 1 0 1")
    atoms = next(iread_atoms(folder))
    assert atoms.get_chemical_formula() == "H2O2" and atoms.get_masses()[0] == pytest.approx(2.0141)


@pytest.mark.parametrize(
    "change",
    [
        {"coords": {"type": "<f8", "shape": [4, 3], "data": b"123"}},
        {"coords": {"type": "O", "shape": [1], "data": b"12345678"}},
        {"coords": "text"},
        {"coords": [[1.0], [1.0, 2.0]]},
        {"atom_types": [0.5, 0, 0, 0]},
        {"atom_types": [7, 0, 0, 0]},
        {"energies": "low"},
        {"energies": [1.0, 2.0]},
        {"forces": [1.0, 2.0]},
    ],
)
def test_a_spoiled_row_of_an_lmdb_file_is_named(tmp_path, change):
    deepmd_lmdb(tmp_path / "a.lmdb", **change)
    with pytest.raises(DataError, match=r"a.lmdb, frame 0"):
        Dataset.read(tmp_path / "a.lmdb")


def test_an_ani_file_of_another_layout_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("H2")
        group["coordinates"] = np.zeros((3, 2, 3))
    with pytest.raises(DataError, match=r"a.h5 is damaged, or has an unknown layout"):
        Dataset.read(tmp_path / "a.h5")
