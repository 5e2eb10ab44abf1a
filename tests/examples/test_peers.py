"""The loop in which peers learn, and what scripts beside them do with frames."""

import argparse
import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


class Springs:
    """Each atom on a spring at the origin, of an unknown constant, with an energy of its element."""

    rate, batch = 0.1, 4

    def __init__(self):
        self.network = torch.nn.Module()
        self.network.constant = torch.nn.Parameter(torch.zeros(1))
        self.network.levels = torch.nn.Parameter(torch.zeros(119))
        self.shift = np.zeros(119)

    def compute(self, frames):
        places = [torch.tensor(f.positions, dtype=torch.float32) for f in frames]
        energies = [0.5 * self.network.constant[0] * (p**2).sum() for p in places]
        energies = [e + self.network.levels[f.numbers].sum() for e, f in zip(energies, frames)]
        return torch.stack(energies), -self.network.constant * torch.cat(places)


def frames(n, constant=3.0):
    rng, made = np.random.default_rng(0), []
    for k in range(n):
        atoms = Atoms(
            "H" * (1 + k % 3) + "O" * (1 + k % 2), positions=rng.normal(size=(2 + k % 3 + k % 2, 3))
        )
        levels = np.where(atoms.numbers == 1, -13.0, -430.0).sum()
        atoms.info["REF_energy"] = float(levels + 0.5 * constant * (atoms.positions**2).sum())
        atoms.arrays["REF_forces"] = -constant * atoms.positions
        made.append(atoms)
    return made


def test_a_peer_learns_its_weights_and_the_elements_levels(script, monkeypatch):
    worker = script("peers.worker")
    ticks = itertools.count()
    monkeypatch.setattr(worker.time, "process_time", lambda: float(next(ticks)))
    model, known = Springs(), frames(8)
    model.shift = worker.element_energies(known, worker.predict(model, known)[0])
    steps = worker.learn(model, known, minutes=5.0, seed=1)
    assert 295 <= steps <= 300  # a second is read for each step: the time ends the training
    assert float(model.network.constant.detach()) == pytest.approx(3.0, abs=0.05)
    model.shift += worker.element_energies(known, worker.predict(model, known)[0])
    levels = model.shift + model.network.levels.detach().numpy()
    assert levels[[1, 8]] == pytest.approx([-13.0, -430.0], abs=0.2)
    energies, forces = worker.predict(model, known)
    assert energies == pytest.approx([f.info["REF_energy"] for f in known], abs=0.5)
    assert forces[3] == pytest.approx(known[3].arrays["REF_forces"], abs=0.1)


def labelled(n):
    made = frames(n)
    for atoms in made:
        labels = {"energy": atoms.info.pop("REF_energy"), "forces": atoms.arrays.pop("REF_forces")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return made


def test_frames_of_a_file_are_tested_on_its_last_or_on_another_file(script, tmp_path):
    jobs = script("peers.jobs")
    args = argparse.Namespace(data=tmp_path, frames=4, seed=1, test_frames=60)
    write(tmp_path / "A.extxyz", labelled(22))
    found = jobs.parts_of("A", args)
    assert [len(found[part]) for part in ("all", "few", "test")] == [6, 4, 16]
    assert found["all"][5].energy == labelled(6)[5].get_potential_energy()
    write(tmp_path / "A.test.extxyz", labelled(3))
    found = jobs.parts_of("A", args)
    assert [len(found[part]) for part in ("all", "few", "test")] == [22, 4, 3]


def test_test_frames_hold_no_element_that_the_few_lack(script, tmp_path):
    (alien,) = labelled(1)
    alien.numbers[0] = 92
    alien.calc.atoms.numbers[0] = 92
    write(tmp_path / "A.extxyz", labelled(6))
    write(tmp_path / "A.test.extxyz", [*labelled(5), alien])
    args = argparse.Namespace(data=tmp_path, frames=4, seed=1, test_frames=60)
    assert len(script("peers.jobs").parts_of("A", args)["test"]) == 5
