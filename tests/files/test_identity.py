"""Identities of structures and calculators, locks, and files that appear whole."""

import multiprocessing
import os

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms

from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.atomic import atomic_path, write_text
from dpa2calc.files.identity import calculator_identity, differences, require_same, structure_identity
from dpa2calc.files.lock import locked, locked_files, working_in
from dpa2calc.store.load import load_model


def changed(atoms, change):
    other = atoms.copy()
    change(other)
    return [text.split(":")[1].split("(")[0].strip() for text in differences(
        {"structure": structure_identity(atoms, momenta=True)},
        {"structure": structure_identity(other, momenta=True)},
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: a.positions.__setitem__((0, 0), 1e-6), ["positions"]),
        (lambda a: a.set_cell(a.cell * 1.001), ["cell"]),
        (lambda a: a.set_pbc([True, True, False]), ["pbc"]),
        (lambda a: a.set_masses([2.0] * len(a)), ["masses"]),
        (lambda a: a.set_constraint(FixAtoms([0])), ["constraints"]),
        (lambda a: a.set_momenta(np.ones((len(a), 3))), ["momenta"]),
        (lambda a: a.set_initial_charges([1.0] * len(a)), ["charges"]),
        (lambda a: a.info.update(charge=1), ["charge"]),
        (lambda a: a.info.update(name="a label says nothing of the physics"), []),
        (lambda a: a.positions.__iadd__(1e-13), []),
    ],
)
def test_a_change_of_the_structure_is_named(change, names):
    assert changed(bulk("Cu", cubic=True), change) == names


class Push:
    """A constraint of one's own, with nothing but what ASE asks for."""

    def __init__(self, force: float) -> None:
        self.force, self.where = force, np.arange(20)

    def adjust_forces(self, atoms, forces) -> None: ...
    def adjust_positions(self, atoms, positions) -> None: ...


def test_constraints_of_ones_own_are_the_same_in_another_process():
    parts = []
    for force in (1.0, 1.0, 2.0):
        atoms = bulk("Cu")
        atoms.set_constraint(Push(force))
        parts.append(structure_identity(atoms)["constraints"])
    assert parts[0] == parts[1] != parts[2]


def test_constraints_differ_by_their_atoms():
    one, two = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    one.set_constraint(FixAtoms([0]))
    two.set_constraint(FixAtoms([1]))
    assert structure_identity(one)["constraints"] != structure_identity(two)["constraints"]


def test_weights_head_precision_and_members_make_a_calculator(tmp_path):
    def identity(*args, **kwargs):
        return calculator_identity(DPA2Calculator(*args, **kwargs))

    first = identity(head="mlearn-PBE")
    assert first == identity("default", "mlearn-PBE", skin=0.3, device="cpu")
    assert first != identity(head="SSE-PBE")
    assert first != identity(head="mlearn-PBE", dtype="float64")
    assert first != identity(head="mlearn-PBE", committee=[(None, "SSE-PBE")])
    retrained = load_model("default")
    next(retrained.parameters()).data.mul_(1 + 1e-6)
    assert first != identity(retrained, "mlearn-PBE")


def test_calculators_of_others_by_class_and_parameters():
    assert calculator_identity(EMT()) == calculator_identity(EMT())
    assert calculator_identity(LennardJones(epsilon=1)) != calculator_identity(LennardJones(epsilon=2))
    pair = [LennardJones(epsilon=1), EMT()]
    assert calculator_identity(SumCalculator(pair)) != calculator_identity(SumCalculator(pair[::-1]))


def test_the_difference_is_named_with_the_ways_out():
    atoms = bulk("Cu")
    other = atoms.repeat(2)
    with pytest.raises(
        ConfigError, match=r"run\.npz belongs to other work.*formula \(\"Cu\" -> \"Cu8\"\).*delete"
    ):
        require_same(
            {"structure": structure_identity(atoms)}, {"structure": structure_identity(other)},
            where="run.npz", ways="delete it",
        )  # fmt: skip


def _hold(path, ready, go):
    with locked(path):
        ready.set()
        go.wait(30)
        os._exit(9)  # as a kill would end it


def test_a_lock_keeps_others_out_and_that_of_a_dead_process_does_not(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, go))
    other.start()
    assert ready.wait(60)
    with pytest.raises(ConfigError, match="another run is writing to"), locked(tmp_path):
        pass
    go.set()
    other.join()
    with locked(tmp_path), pytest.raises(ConfigError), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_calls_inside_a_call_need_no_lock_of_their_own(tmp_path):
    with working_in(tmp_path / "new"), working_in(tmp_path / "new"), locked_files(tmp_path / "new" / "a.csv"):
        with pytest.raises(ConfigError, match="another run is writing to"), locked(tmp_path / "new"):
            pass
    with locked_files(tmp_path / "a.csv", None), pytest.raises(ConfigError), locked_files(tmp_path / "a.csv"):
        pass
    with pytest.raises(ConfigError, match="each file needs a name of its own"):
        with locked_files(tmp_path / "a.csv", tmp_path / "new" / ".." / "a.csv"):
            pass
    with working_in(None), locked_files():
        pass
    assert not list(tmp_path.iterdir())


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(RuntimeError), working_in(tmp_path / "old" / "a" / "b"):
        raise RuntimeError
    with pytest.raises(RuntimeError), locked_files(tmp_path / "c" / "d.csv", tmp_path / "e" / "f.csv"):
        write_text(tmp_path / "e" / "f.csv", "work")
        raise RuntimeError
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert names == ["e", os.path.join("e", "f.csv"), "old"]
