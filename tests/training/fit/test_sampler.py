"""Which frames are drawn, and that batches hold what the frames hold."""

import numpy as np
import pytest
import torch

from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.loader import Budget, GraphStore, make_batch
from dpa2calc.training.fit.loss import Labels, energy_force_loss
from dpa2calc.training.fit.sampler import Sampler, Task
from dpa2calc.training.fit.setup import new_potential


@pytest.fixture
def tasks(tiny_model, lj_data):
    config = tiny_model(("A", "B"))
    return [
        Task("A", 0, GraphStore(lj_data(7), config), 3.0),
        Task("B", 1, GraphStore(lj_data(5, repeat=2), config), 1.0),
    ]


def test_sets_by_weight_and_frames_once_an_epoch(tasks):
    sampler = Sampler(tasks, batch_atoms=8, batches_per_step=2, seed=4)
    draws = [d for step in range(400) for d in sampler.draw(step)]
    share = np.mean([d.task == 0 for d in draws])
    assert share == pytest.approx(0.75, abs=0.05)
    seen = [f for d in draws if d.task == 0 for f in d.frames]
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in range(0, 70, 7))
    assert seen[:7] != seen[7:14]
    assert {len(d.frames) for d in draws if d.task == 0} <= {1, 2}
    assert {len(d.frames) for d in draws if d.task == 1} == {1}


def test_state_goes_on_exactly(tasks):
    one, two = (Sampler(tasks, batch_atoms=12, batches_per_step=3, seed=1) for _ in range(2))
    whole = [one.draw(step) for step in range(30)]
    first = [two.draw(step) for step in range(11)]
    three = Sampler(tasks, batch_atoms=12, batches_per_step=3, seed=1)
    three.load_state(two.state())
    assert first + [three.draw(step) for step in range(11, 30)] == whole


@pytest.mark.parametrize(
    ("n_frames", "batch_atoms", "sizes"),
    [
        (25, 92, [13, 12]),
        (7, 8, [2, 2, 2, 1]),
        (9, 16, [3, 3, 3]),
        (5, 100, [5]),
        (26, 20, [5, 5, 4, 4, 4, 4]),
    ],
)
def test_the_last_batches_of_a_pass_are_alike(tiny_model, lj_data, n_frames, batch_atoms, sizes):
    task = Task("A", 0, GraphStore(lj_data(n_frames), tiny_model()))
    sampler = Sampler([task], batch_atoms=batch_atoms, batches_per_step=1)
    draws = [sampler.draw(step)[0].frames for step in range(2 * len(sizes))]
    assert [len(frames) for frames in draws] == [*sizes, *sizes]
    assert sampler.usual_labels()[0].energies == n_frames / len(sizes)


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
def test_stored_tables_give_the_same_graph(tiny_model, lj_frames, pbc):
    config = tiny_model()
    frames = lj_frames(2)
    for atoms in frames:
        atoms.calc = None
        atoms.pbc = pbc
        atoms.positions += [30.0, -20.0, 0.0]  # far outside the cell
    if pbc is False:
        frames[1].cell = None
    store = GraphStore(Dataset.from_atoms(frames), config, budget=Budget(10**6))
    for _ in range(2):
        for index, atoms in enumerate(frames):
            got, want = store.graph(index), graph_from_atoms(atoms, config)
            assert torch.equal(got.neighbors, want.neighbors) and torch.equal(got.mask, want.mask)
            torch.testing.assert_close(got.vectors, want.vectors, rtol=0, atol=1e-11)
    assert store.budget.left < 10**6


def test_budget_limits_what_is_kept(tiny_model, lj_data):
    budget = Budget(2500)
    store = GraphStore(lj_data(10), tiny_model(), budget=budget)
    for index in range(10):
        store.graph(index)
    assert 0 <= budget.left < 2500
    assert 0 < len(store._tables) < 10


def test_all_frames_of_a_set_count_the_same(tiny_model, lj_data):
    """The batches of an epoch, however full, add up to the loss of the whole set as one batch."""
    small, large = lj_data(7), lj_data(4, repeat=2)
    mixed = Dataset((*small, *large), name="mixed")
    store = GraphStore(mixed, tiny_model())
    sampler = Sampler([Task("mixed", 0, store)], batch_atoms=12, batches_per_step=1, seed=3)
    potential = new_potential(tiny_model(), seed=2, dtype="float64")

    def loss(frames: tuple[int, ...], usual: Labels | None) -> float:
        batch = make_batch(store, frames)
        output = potential.compute(batch.graph)
        terms = energy_force_loss(output, batch, (2.0, 3.0, 5.0), huber_delta=0.1, usual=usual)
        return float(terms.total.detach())

    usual = sampler.usual_labels()[0]
    draws: list[tuple[int, ...]] = []
    while sampler.epochs == [0]:
        draws.append(sampler.draw(len(draws))[0].frames)
    losses = [loss(frames, usual) for frames in draws]
    assert {len(frames) for frames in draws} >= {1, 2}
    assert np.mean(losses) == pytest.approx(loss(tuple(range(len(mixed))), None), rel=1e-10)
