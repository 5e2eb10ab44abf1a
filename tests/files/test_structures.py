"""Files of structures in every dialect: read right, or refused with the frame and the reason."""

import bz2
import gzip
import lzma
import os

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from dpa2calc.applications import Frames
from dpa2calc.cli.arguments.structures import read_frame
from dpa2calc.errors import DataError, MissingDependencyError, OutputError
from dpa2calc.files.structures import iread_structures, read_structures, write_structures
from dpa2calc.structures.attached import attached
from dpa2calc.training import Dataset


def labelled(seed=0, n=1):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.cell[1, 0] = 0.3  # a triclinic cell shows a transposed one
        atoms.rattle(0.1, rng=rng)
        tensor = rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(rng.normal()),
            forces=rng.normal(size=(4, 3)),
            stress=(tensor + tensor.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        )
        frames.append(atoms)
    return frames


def spelled(word, how):
    return {"lower": word.lower(), "upper": word.upper(), "title": word.capitalize(), "own": word}[how]


@st.composite
def dialects(draw):
    how = {
        name: draw(st.sampled_from(["lower", "upper", "title", "own"]))
        for name in ("Lattice", "Properties", "pbc", "energy", "stress", "virial", "species", "pos", "forces")
    }
    return {
        "how": how,
        "seed": draw(st.integers(0, 999)),
        "pbc": draw(st.sampled_from([None, "T T T", "t t t", "1 1 1", "True true TRUE"])),
        "tensor": draw(st.sampled_from(["stress 9", "stress 6", "virial 9", "virial 6", ""])),
        "force": draw(st.sampled_from(["force", "forces"])),
        "fortran": draw(st.booleans()),
        "newline": draw(st.sampled_from(["\n", "\r\n"])),
        "mark": draw(st.booleans()),
        "spaces": draw(st.sampled_from(["=", " = "])),
    }


def written(atoms, d):
    """The text of one frame, as the dialect has it."""

    def number(x):
        return f"{x:.12e}".replace("e", "D") if d["fortran"] else f"{x:.12e}"

    def key(name):
        return spelled(name, d["how"][name])

    eq = d["spaces"]
    parts = [f"{key('energy')}{eq}{number(atoms.get_potential_energy())}"]
    parts.append(f'{key("Lattice")}{eq}"{" ".join(number(x) for x in atoms.cell.array.ravel())}"')
    if d["pbc"]:
        parts.append(f'{key("pbc")}{eq}"{d["pbc"]}"')
    if d["tensor"]:
        name, size = d["tensor"].split()
        scale = 1.0 if name == "stress" else -atoms.get_volume()
        values = scale * (atoms.get_stress() if size == "6" else atoms.get_stress(voigt=False).ravel())
        parts.append(f'{key(name)}{eq}"{" ".join(number(x) for x in values)}"')
    forces = spelled(d["force"], d["how"]["forces"])
    parts.append(f"{key('Properties')}{eq}{key('species')}:S:1:{key('pos')}:R:3:{forces}:R:3")
    lines = [str(len(atoms)), " ".join(parts)]
    for symbol, r, f in zip(atoms.symbols, atoms.positions, atoms.get_forces()):
        lines.append(" ".join([symbol, *(number(x) for x in (*r, *f))]))
    return ("\ufeff" if d["mark"] else "") + d["newline"].join(lines) + d["newline"]


@settings(max_examples=40, deadline=None)
@given(dialects())
def test_a_frame_in_any_dialect_is_the_frame(tmp_path_factory, d):
    (atoms,) = labelled(d["seed"])
    path = tmp_path_factory.mktemp("dialect") / "a.xyz"
    path.write_bytes(written(atoms, d).encode())
    (frame,) = Dataset.read(path)
    np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-11)
    np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-11)
    assert frame.pbc.all()
    assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-11)
    np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-11)
    if d["tensor"]:
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-10)
    else:
        assert frame.virial is None
    for read in (next(iter(Frames(path))), read_frame(str(path))):  # analyses, command line
        np.testing.assert_allclose(read.cell.array, atoms.cell.array, atol=1e-11)
        assert read.pbc.all() and list(read.symbols) == list(atoms.symbols)


HEADER = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3'


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('cell="9 0 0 0 9 0 0 0 9"', "the header has cell= but no Lattice="),
        ('Box="9 9 9"', "the header has Box= but no Lattice="),
        ('Latice="9 0 0 0 9 0 0 0 9"', "the header has Latice= but no Lattice="),
        ("columns=species:S:1:pos:R:3", "columns= looks like the list of columns"),
        ("Properties=species:S:1:place:R:3", r"lists no positions \(pos:R:3\)"),
        ("Properties=kind:S:1:pos:R:3", "lists no elements"),
        (f'{HEADER} pbc="yes no no"', 'pbc="yes no no" is not understood'),
        (f"{HEADER} stress=high", "stress='high' is not numbers"),
        ('Lattice="9 0 0"', "special 3x3 matrix"),
    ],
)
def test_headers_that_would_be_half_read_are_refused(tmp_path, header, message):
    path = tmp_path / "a.xyz"
    path.write_text(f"1\n{HEADER}\nCu 0 0 0\n1\n{header}\nCu 0 0 0\n")
    for read in (Dataset.read, lambda p: list(Frames(p)), lambda p: read_frame(str(p))):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert f"{path}, frame 1" in str(caught.value)


def test_a_header_that_ase_did_not_understand_is_refused(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text('1\nlattice="9 0 0 0 9 0 0 0 9" properties=species:S:1:pos:R:3 energy=1\nCu 0 0 0\n')
    with pytest.raises(DataError, match=r"data, frame 0: atoms.info has lattice, properties, but"):
        Dataset.from_atoms(ase.io.read(path, ":"))


def test_words_of_a_plain_comment_are_no_labels(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("1\na run at low stress and virial\nCu 0 0 0\n")
    assert read_frame(str(path)).calc is None


def test_deuterium_and_tritium_are_hydrogen_with_their_mass(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("4\nProperties=pos:R:3:species:S:1\n0 0 0 O\n0 0 1 D\n0 1.5D+00 0 T\n1 0 0 H\n")
    atoms = read_frame(str(path))
    assert atoms.get_chemical_formula() == "H3O" and atoms.positions[2, 1] == 1.5
    np.testing.assert_allclose(atoms.get_masses(), [15.999, 2.01410, 3.01605, 1.008], atol=1e-4)
    assert Dataset.read(path).elements == ("H", "O")
    ase.io.write(tmp_path / "POSCAR", Atoms("H", cell=[5, 5, 5]), format="vasp")
    (tmp_path / "POSCAR").write_text((tmp_path / "POSCAR").read_text().replace("H", "D"))
    with pytest.raises(DataError, match=r"POSCAR cannot be read: 'D' is no element .* write H"):
        read_frame(str(tmp_path / "POSCAR"))
    path.write_text("1\n\nQq 0 0 0\n")
    with pytest.raises(DataError, match=r"a.xyz, frame 0: 'Qq' is no element"):
        Dataset.read(path)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("name", ["a.traj", "a.extxyz", "a.json", "run@300K.traj", "run@1.extxyz", "a#1.xyz"])
def test_every_format_may_be_compressed_and_have_any_name(tmp_path, name, suffix):
    frames = labelled(3, n=5)
    kind = {"traj": "traj", "json": "json"}.get(name.rsplit(".")[-1], "extxyz")
    ase.io.write(tmp_path / f"plain.{kind}", frames, format=kind)
    packer = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]
    path = tmp_path / (name + suffix)
    path.write_bytes(packer((tmp_path / f"plain.{kind}").read_bytes()))
    for read in (list(Frames(path)), list(iread_structures(path)), list(Dataset.read(path))):
        np.testing.assert_allclose([f.positions for f in read], [f.positions for f in frames], atol=1e-7)
    np.testing.assert_allclose(read_frame(str(path), 2).positions, frames[2].positions, atol=1e-7)
    assert len(read_structures(path, "1::2")) == 2
    assert Dataset.read(path)[4].energy == pytest.approx(frames[4].get_potential_energy(), abs=1e-9)


@pytest.mark.parametrize("index", ["0", "-1", "3:", ":-2", "::3", "-4:-1:2", "::-1", "1:100"])
def test_an_index_means_what_it_means_for_a_list(tmp_path, index):
    path = tmp_path / "a.xyz"
    path.write_text("".join(f"1\n\nCu {k} 0 0\n" for k in range(150)))
    parts = [int(p) if p else None for p in index.split(":")]
    wanted = list(range(150))[slice(*parts)] if ":" in index else [list(range(150))[parts[0]]]
    assert [a.positions[0, 0] for a in read_structures(path, index)] == wanted
    with pytest.raises(DataError, match="has no frame '150'"):
        read_structures(path, "150")
    with pytest.raises(DataError, match=f"has no frame '{10**20}'"):  # beyond what islice takes
        read_structures(path, str(10**20))
    assert len(read_structures(path, f":{10**20}")) == len(read_structures(path))
    path.write_text("\n\n")
    for index in (":", slice(None)):
        with pytest.raises(DataError, match=r"a\.xyz holds no frames"):
            read_structures(path, index)
    for wrong in ("a:b", "1:2:3:4", "::0", 0.5, None):
        with pytest.raises(DataError, match="are not understood"):
            read_structures(path, wrong)
    with pytest.raises(DataError, match="frames 'last' are not understood"):
        read_structures(path, "last")


@pytest.mark.parametrize("good", [0, 1, 63, 64, 100])
@pytest.mark.parametrize("damage", ["1\n\n", "1\n\nCu 0 oops 0\n", "what is this\n", "2\n\nCu 0 0 0\n"])
def test_frames_before_a_damaged_one_are_read(tmp_path, good, damage):
    """A file that a running or killed program left: all whole frames are there, and their number is right."""
    path, read = tmp_path / "a.xyz", []
    path.write_text("".join(f"1\n\nCu {k} 0 0\n" for k in range(good)) + damage)
    with pytest.raises(DataError, match=f"frame {good} of the selection cannot be read .*, frame {good}: "):
        for atoms in Frames(path):
            read.append(atoms.positions[0, 0])
    assert read == list(range(good))


@pytest.mark.parametrize("first", ["1000000000000", "-5", "12.5", "many"])
def test_a_wrong_number_of_atoms_is_refused_at_once(tmp_path, first):
    path = tmp_path / "a.xyz"
    path.write_text(f"{first}\n\nCu 0 0 0\n")
    with pytest.raises(DataError, match=r"a.xyz, frame 0"):
        list(Frames(path))


def test_zstandard_is_read_or_its_library_is_named(tmp_path):
    path = tmp_path / "a.xyz.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises((MissingDependencyError, DataError), match=r"a.xyz.zst"):
        Dataset.read(path)


def test_a_file_of_another_suffix_is_known_by_its_content(tmp_path):
    frames = labelled(1, n=2)
    ase.io.write(tmp_path / "CONTCAR", frames[0], format="vasp")
    np.testing.assert_allclose(read_frame(str(tmp_path / "CONTCAR")).cell, frames[0].cell, atol=1e-9)
    ase.io.write(tmp_path / "train.dat", Atoms("Cu"), format="extxyz")
    assert len(Dataset.read(tmp_path / "train.dat")) == 1


@pytest.mark.parametrize("name", ["a.extxyz", "a.cif", "POSCAR", "a.extxyz.gz"])
def test_structures_are_written_whole_in_the_format_of_the_name(tmp_path, name, monkeypatch):
    write_structures(tmp_path / name, bulk("Cu", cubic=True))
    again = read_structures(tmp_path / name)[0]
    assert len(again) == 4 and again.get_volume() == pytest.approx(3.61**3, rel=1e-5)
    before = (tmp_path / name).read_bytes()

    def half(path, *_: object, **__: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ase.io.write", half)
    with pytest.raises(OutputError, match=f"{name} cannot be written: No space left"):
        write_structures(tmp_path / name, bulk("Cu"))
    assert (tmp_path / name).read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("sites", [["Cu1 Cu 0 0 0 0.7", "Au1 Au 0 0 0 0.3"], ["Cu1 Cu 0 0 0 0.5"]])
def test_sites_that_are_shared_or_partly_empty_are_no_structure(tmp_path, sites):
    path = tmp_path / "alloy.cif"
    lengths = [f"_cell_length_{axis} 3.7" for axis in "abc"]
    angles = [f"_cell_angle_{axis} 90" for axis in ("alpha", "beta", "gamma")]
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    names = [f"_atom_site_{column}" for column in columns]
    head = ["data_x", "_symmetry_space_group_name_H-M 'F m -3 m'", *lengths, *angles, "loop_", *names]
    path.write_text("\n".join([*head, *sites]) + "\n")
    with pytest.raises(DataError, match=r"alloy.cif has a site that is shared or partly empty \(Cu 0\.[57]"):
        read_structures(path)
    path.write_text("\n".join([*head, "Cu1 Cu 0 0 0 1.0"]) + "\n")
    (found,) = read_structures(path)
    assert len(found) == 4 and "occupancy" not in attached(found)["info"]


def test_a_pipe_is_no_file_of_structures(tmp_path):
    os.mkfifo(tmp_path / "pipe.xyz")
    with pytest.raises(
        DataError, match=r"pipe\.xyz is a pipe or a device, which can be read only once; save it"
    ):
        read_structures(tmp_path / "pipe.xyz")
