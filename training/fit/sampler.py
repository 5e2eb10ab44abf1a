"""Which frames of which set make up a step: reproducible, resumable, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from dpa2calc.engine.batches import batches
from dpa2calc.training.runs.state import count

from .loader import GraphStore
from .loss import Labels

_ALIKE = 4  # batches at the end of a pass that are made equally large


@dataclass(frozen=True)
class Task:
    """One training set: its name, the position of its head, its graphs and sampling weight."""

    name: str
    head: int
    store: GraphStore
    weight: float = 1.0


@dataclass(frozen=True)
class Draw:
    """One batch to be made: task index and frame indices."""

    task: int
    frames: tuple[int, ...]


class Sampler:
    """Draws sets by weight with replacement (paper, 4.4), and frames of a set without, epoch by epoch.

    The draw of a step depends on the seed, the step and how far each set has come, which `state` holds.
    """

    def __init__(self, tasks: Sequence[Task], *, batch_atoms: int, batches_per_step: int, seed: int = 0):
        self.tasks = list(tasks)
        self.batch_atoms, self.batches_per_step, self.seed = batch_atoms, batches_per_step, seed
        weights = np.array([task.weight for task in tasks], dtype=np.float64)
        self.probabilities = weights / weights.sum()
        self.epochs = [0] * len(self.tasks)
        self.positions = [0] * len(self.tasks)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def draw(self, step: int) -> list[Draw]:
        """The batches of a step; call once for each step, in order."""
        rng = np.random.default_rng([self.seed, 0, step])
        chosen = rng.choice(len(self.tasks), size=self.batches_per_step, p=self.probabilities)
        return [Draw(int(task), self._take(int(task))) for task in chosen]

    def usual_labels(self) -> list[Labels]:
        """Labels of each set's batches, averaged over one pass through its frames."""
        found = []
        for place, task in enumerate(self.tasks):
            frames = task.store.dataset
            number = self._number(place, self._permutation(place, 0))
            found.append(
                Labels(
                    energies=sum(f.energy is not None for f in frames) / number,
                    forces=sum(f.n_atoms for f in frames if f.forces is not None) / number,
                    virials=sum(f.virial is not None for f in frames) / number,
                )
            )
        return found

    def _number(self, task: int, order: np.ndarray) -> int:
        """How many batches a pass over the frames takes."""
        number = 0
        while len(order):
            order, number = order[self._first(task, order) :], number + 1
        return number

    def _first(self, task: int, order: np.ndarray) -> int:
        """How many of the frames make the first batch: as many as fit, the last batches of a pass alike.

        A small rest, such as 2 of 25 frames where 23 fit, would cost a step that teaches little.
        """
        data = self.tasks[task].store.dataset
        full = batches((data[int(frame)].n_atoms for frame in order), self.batch_atoms)
        coming = list(islice(full, _ALIKE + 1))
        if len(coming) > _ALIKE:
            return len(coming[0])
        sizes = np.cumsum([data[int(frame)].n_atoms for frame in order])
        return min(int(np.searchsorted(sizes, sizes[-1] / len(coming))) + 1, len(coming[0]))

    def _take(self, task: int) -> tuple[int, ...]:
        order = self._order(task)
        start = self.positions[task]
        end = start + self._first(task, order[start:])
        self.positions[task] = end
        if end >= len(order):
            self.epochs[task] += 1
            self.positions[task] = 0
        return tuple(int(i) for i in order[start:end])

    def _order(self, task: int) -> np.ndarray:
        epoch = self.epochs[task]
        kept = self._orders.get(task)
        if kept is None or kept[0] != epoch:
            kept = (epoch, self._permutation(task, epoch))
            self._orders[task] = kept
        return kept[1]

    def _permutation(self, task: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, task + 1, epoch])
        return rng.permutation(len(self.tasks[task].store))

    def state(self) -> dict[str, list[int]]:
        """Epoch and position of each set by name, ready for JSON."""
        return {t.name: [self.epochs[i], self.positions[i]] for i, t in enumerate(self.tasks)}

    def load_state(self, state: dict[str, list[int]]) -> None:
        """Continue where `state` was taken; a ValueError for a state of other sets or more frames."""
        names = [task.name for task in self.tasks]
        if not isinstance(state, dict) or sorted(state) != sorted(names):
            raise ValueError(f"the sampler's sets are {list(state)}, not {names}")
        for i, task in enumerate(self.tasks):
            epoch, position = (count({"sampler": value}, "sampler") for value in state[task.name])
            if position >= len(task.store):
                raise ValueError(f"the sampler is at frame {position} of {len(task.store)} in {task.name!r}")
            self.epochs[i], self.positions[i] = epoch, position
