"""Files of other programs: known by their content, or refused with the way out."""

import gzip

import pytest
from ase.units import Bohr, Hartree

from dpa2calc.applications import Frames
from dpa2calc.cli.arguments.structures import read_frame
from dpa2calc.errors import DataError
from dpa2calc.training import Dataset

LAMMPS = """made by hand

2 atoms
2 atom types

0.0 4.0 xlo xhi
0.0 4.0 ylo yhi
0.0 4.0 zlo zhi

{}Atoms # atomic

1 1 0.0 0.0 0.0
2 2 2.0 2.0 2.0
"""


@pytest.mark.parametrize("name", ["x.data", "data.nacl", "start.lmp", "nacl.dat"])
def test_a_lammps_data_file_is_read_under_any_name(tmp_path, name):
    path = tmp_path / name
    path.write_text(LAMMPS.format("Masses\n\n1 22.98977\n2 35.453\n\n"))
    for atoms in (read_frame(str(path)), next(iter(Frames(path)))):
        assert list(atoms.symbols) == ["Na", "Cl"] and atoms.cell.lengths().tolist() == [4, 4, 4]
    path.write_text(LAMMPS.format(""))
    with pytest.raises(DataError, match="without Masses and Atom Type Labels, so its elements are not known"):
        read_frame(str(path))


def test_a_dump_without_elements_says_what_its_types_were_taken_for(tmp_path):
    path = tmp_path / "dump.lammpstrj"
    path.write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\n"
        "ITEM: ATOMS id type x y z\n1 1 0 0 0\n"
    )
    with pytest.warns(UserWarning, match="names no elements"):
        read_frame(str(path))


def test_a_file_without_units_says_which_were_taken(tmp_path):
    (tmp_path / "input.data").write_text(
        "begin\ncomment\nlattice 10 0 0\nlattice 0 10 0\nlattice 0 0 10\n"
        "atom 0 0 0 Cu 0 0 0.01 0 0\natom 5 0 0 S 0 0 -0.01 0 0\nenergy -3.5\ncharge 0\nend\n"
    )
    with pytest.warns(UserWarning, match="names no units: it is read as in Bohr, Hartree and Hartree/Bohr"):
        (frame,) = Dataset.read(tmp_path / "input.data")
    assert frame.cell[0, 0] == pytest.approx(10 * Bohr) and frame.energy == pytest.approx(-3.5 * Hartree)
    assert frame.forces[0, 0] == pytest.approx(0.01 * Hartree / Bohr)


@pytest.mark.parametrize(
    "name, way",
    [
        ("frames.conf", r"ASE knows \(conf\); write it as extended XYZ"),
        ("frames.tgz", r"ASE knows \(tgz\); unpack it, and name the files in it"),
        ("frames.tar.gz", r"ASE knows \(tar\); unpack it, and name the files in it"),
    ],
)
def test_formats_that_nobody_knows_are_named_with_the_way_out(tmp_path, name, way):
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wb") as file:
        file.write(b"point= 1\n7.5 0.0 0.0\n")
    for read in (Dataset.read, lambda path: read_frame(str(path))):
        with pytest.raises(DataError, match=way):
            read(tmp_path / name)


def test_what_cannot_be_read_is_refused_with_the_way_out(tmp_path):
    for name in ("b.xyz", "a.xyz"):
        (tmp_path / name).write_text("1\n\nCu 0 0 0\n")
    with pytest.raises(DataError, match=r"is a folder, not a file; it holds a.xyz, b.xyz: name the files"):
        Dataset.read(tmp_path)
    with pytest.raises(DataError, match="is a folder"):
        read_frame(str(tmp_path))
    with pytest.raises(DataError, match="is a folder"):
        Frames(tmp_path)
    (tmp_path / "c[1].xyz").write_text("1\n\nCu 0 0 0\n")
    assert len(Dataset.read(tmp_path / "c[1].xyz")) == 1 and len(Dataset.read(tmp_path / "*.xyz")) == 3
    with pytest.raises(DataError, match="no file fits the pattern"):
        Dataset.read([tmp_path / "a.xyz", tmp_path / "*.none"])
    for ending in ("cif", "xyz"):
        wide = tmp_path / f"wide.{ending}"
        wide.write_text("1\n\nCu 0 0 0\n", encoding="utf-16")
        with pytest.raises(DataError, match="is text of UTF-16"):
            read_frame(str(wide))
        (tmp_path / f"empty.{ending}").touch()
        with pytest.raises(DataError, match=rf"empty.{ending} is empty"):
            read_frame(str(tmp_path / f"empty.{ending}"))
    (tmp_path / "latin.xyz").write_bytes(b"1\n1.5 \xc5ngstr\xf6m\nCu 0 0 0\n")
    assert read_frame(str(tmp_path / "latin.xyz")).get_chemical_formula() == "Cu"
