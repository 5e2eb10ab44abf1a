"""How sure a trained head is: measured on its training frames, scaled by its errors on frames held out.

add_uncertainty(potential, {"water": TrainingSet(train, validation)})
save_checkpoint(potential, "model.safetensors")
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.description import weights_digest
from dpa2calc.engine.batches import in_order
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.potential import Potential
from dpa2calc.model.rigidity import (
    MOST_UNLIKELY,
    QUANTILE,
    Rigidity,
    RigidityFacts,
    calibrate,
    force_floor,
    inverse_factor,
    sums_by_net,
)
from dpa2calc.progress import progress_bar
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingData, TrainingSet
from dpa2calc.training.fit.loader import Batch, GraphStore
from dpa2calc.training.fit.predict import over_frames

logger = logging.getLogger(__name__)

MOST_ATOMS = 20_000  # of the training frames of a head
MOST_FOR_FORCES = 500  # atoms of those of them that the scale of forces is taken from
FEWEST_HELD_OUT = 10  # frames; with fewer the scale comes from training frames


@own_modes(grad=False)
def add_uncertainty(
    potential: Potential,
    sets: Mapping[str, TrainingSet | Dataset],
    *,
    seed: int = 0,
    most_atoms: int = MOST_ATOMS,
    progress: bool = False,
) -> dict[str, RigidityFacts]:
    """Measure the uncertainty of the heads that the sets train, and leave it in the potential.

    The calculator then gives `energy_std`, `energies_std` and, when asked, `forces_std`; `save_checkpoint`
    keeps it.

    Args:
        potential: changed in place; its weights are not.
        most_atoms: of the training frames of a head that are looked at, and half as many of its validation
            frames; a random sample.
        sets: training sets by name, as `pretrain` takes them; the name, or `head`, is that of the head.

    Returns:
        What was used, by the name of the head; heads that predict something else than energies are left out.

    Raises:
        ConfigError, DataError: see `TrainingData.of`. DataError: no frame of a head has an energy.
        ConfigError: a head makes its energies in another way than by a last linear layer.
    """
    return _add(potential, sets, seed, most_atoms, progress)


def _add(
    potential: Potential, sets: Mapping[str, TrainingSet | Dataset], seed: int, most_atoms: int,
    progress: bool, weights: str = "",
) -> dict[str, RigidityFacts]:  # fmt: skip
    """`add_uncertainty`; `weights` says in the bar which those are that are measured."""
    data = TrainingData.of(sets, potential.config)
    facts = {}
    for place in sorted(set(data.heads.values())):
        head = potential.config.heads[place]
        if head.label:
            continue
        own = [item for name, item in data.sets.items() if data.heads[name] == place]
        made = measure_rigidity(
            potential, place, own, seed=seed, most_atoms=most_atoms, progress=progress, weights=weights
        )
        potential.heads[place].rigidity = made
        facts[head.name] = made.facts
        logger.info("%s: uncertainty %s", head.name, made.facts)
    return facts


def leave_uncertainty(
    potential: Potential, path: Path, sets: Mapping[str, TrainingSet], *, seed: int, progress: bool = False
) -> None:
    """At the end of a run: measure it for the potential that is returned and for the one in the run's file.

    Heads that make their energies in a way of their own, and sets without energies, are passed over.
    """
    heads = {head.name: module for head, module in zip(potential.config.heads, potential.heads)}
    usable = {}
    for name, item in sets.items():
        module = heads[item.head or name]
        measured = isinstance(module, EnergyHead) and module.why_no_rigidity() is None
        if measured and len(item.train.with_energies()):
            usable[name] = item
    if not usable:
        return
    info, kept = checkpoint_info(path), load_checkpoint(path)
    same = weights_digest(kept) == weights_digest(potential)
    _add(potential, usable, seed, MOST_ATOMS, progress, "" if same else ", last weights")
    if info.uncertainty:  # of an earlier call
        return
    if same:
        kept = potential
    else:
        _add(kept.to(potential.device), usable, seed, MOST_ATOMS, progress, ", best weights")
    save_checkpoint(kept, path, extra_info=info.extra)


def take_uncertainty(potential: Potential, path: Path) -> None:
    """Give a potential what was measured for the same weights in a file, if there is such a file."""
    if path.exists() and checkpoint_info(path).uncertainty:
        other = load_checkpoint(path)
        if weights_digest(other) == weights_digest(potential):
            for own, head in zip(potential.heads, other.heads):
                own.rigidity = head.rigidity


def measure_rigidity(
    potential: Potential,
    head: int,
    sets: Sequence[TrainingSet],
    *,
    seed: int = 0,
    most_atoms: int = MOST_ATOMS,
    progress: bool = False,
    weights: str = "",
) -> Rigidity:
    """The rigidity of one head from the sets that train it; the bar ends its title with `weights`.

    Raises:
        DataError: no frame has an energy. ConfigError: it has no last linear layer.
    """
    module, name = potential.heads[head], potential.config.heads[head].name
    reason = module.why_no_rigidity() if isinstance(module, EnergyHead) else "it predicts no energies"
    if reason is not None:
        raise ConfigError(f"head {name!r} has no uncertainty: {reason}")
    train = _spread([item.train for item in sets], most_atoms, seed=seed)
    held = [part.with_energies() for item in sets for part in item.validation_sets().values()]
    held_out = sum(map(len, held)) >= FEWEST_HELD_OUT
    labelled = held if held_out else [item.train.with_energies() for item in sets]
    known = _spread(labelled, most_atoms // 2, seed=seed)
    if not known:
        raise DataError(f"head {name!r}: no frame has an energy, by which its uncertainty could be scaled")
    with_forces = known.subset([i for i, frame in enumerate(known) if frame.forces is not None])
    pushed = _spread([with_forces], MOST_FOR_FORCES)
    bar = progress_bar(
        total=len(train) + len(known) + len(pushed),
        desc=f"uncertainty of {name}{weights}",
        unit="frame",
        shown=progress,
    )
    with bar, potential.using("inference"):
        seen, tests = (_observe(potential, head, data, bar.update) for data in (train, known))
        moments = _moments(seen)
        found = calibrate(moments, tests.sums, tests.errors)
        facts = RigidityFacts(
            scale=found.scale,
            ridge=found.ridge,
            frames=len(train),
            atoms=len(seen.types),
            calibrated_on=len(known),
            held_out=held_out,
            left_out=found.left_out,
        )
        limits = torch.zeros(potential.config.n_types)
        rigidity = Rigidity(inverse_factor(moments, found.ridge), limits, facts)
        rigidity = rigidity.to(potential.device).to(potential.dtype)
        values = rigidity.of_atoms(seen.features, seen.types).double()
        for kind in seen.types.unique().tolist():
            rigidity.limits[kind] = values[seen.types == kind].quantile(QUANTILE)
        rigidity.facts = _with_forces(facts, potential, head, rigidity, pushed, bar.update)
    return rigidity


@dataclass(frozen=True)
class _Observed:
    """Of some frames: features (n_atoms, m) and types of the atoms, frame by frame their sums (n, n_nets, m),
    sizes (n,), and label less prediction of the energies (n,), NaN without a label."""

    features: Tensor
    types: Tensor
    sums: Tensor
    sizes: Tensor
    errors: Tensor


def _observe(potential: Potential, head: int, data: Dataset, done: Callable[[int], object]) -> _Observed:
    module = potential.heads[head]
    n_nets = len(module.nets)  # type: ignore[arg-type]

    def work(batch: Batch) -> Iterable[tuple[Tensor, Tensor, Tensor, float]]:
        graph = batch.graph
        with torch.no_grad():
            ((energies, features),) = potential.features(graph, head)
        types, n = graph.types.to(features.device), graph.n_structures
        nets = types if n_nets > 1 else torch.zeros_like(types)
        structure = graph.structure.to(features.device)
        sums = sums_by_net(features, nets, structure, n, n_nets)
        totals = energies.new_zeros(n).index_add(0, graph.structure, energies).tolist()
        sizes = batch.n_atoms.long().tolist()
        return zip(features.split(sizes), types.split(sizes), sums, totals)

    store = GraphStore(data, potential.config)
    parts = in_order(over_frames(work, potential, store, range(len(data)), head=head), done)
    features, types, sums, totals = (list(column) for column in zip(*parts))
    labels = [np.nan if frame.energy is None else frame.energy for frame in data]
    return _Observed(
        torch.cat(features),
        torch.cat(types),
        torch.stack(sums).double().cpu(),
        torch.tensor([len(part) for part in types], dtype=torch.float64),
        torch.tensor(np.array(labels) - np.array(totals), dtype=torch.float64),
    )


def _moments(seen: _Observed) -> Tensor:
    """Second moments of the features of each net's atoms, (n_nets, m, m); every frame counts the same."""
    features, types = seen.features.double().cpu(), seen.types.cpu()
    weights = (1.0 / (seen.sizes * len(seen.sizes))).repeat_interleave(seen.sizes.long())
    n_nets = seen.sums.shape[1]
    parts = []
    for net in range(n_nets):
        own = types == net if n_nets > 1 else slice(None)
        chosen = features[own]
        parts.append((chosen * weights[own].unsqueeze(1)).t() @ chosen)
    return torch.stack(parts)


def _with_forces(
    facts: RigidityFacts,
    potential: Potential,
    head: int,
    rigidity: Rigidity,
    sample: Dataset,
    done: Callable[[int], object],
) -> RigidityFacts:
    """The facts with how errors of forces compare with deviations and labels, on frames with such labels."""
    if not sample:
        return facts
    module = potential.heads[head]
    before, module.rigidity = module.rigidity, rigidity

    def work(batch: Batch) -> Iterable[Tensor]:
        output = potential.compute(batch.graph, head, forces_std=True)
        assert output.forces_std is not None
        parts = (output.forces - batch.forces, output.forces_std, batch.forces)
        squares = torch.stack([part.square() for part in parts]).cpu()  # (3, n_atoms, 3)
        return squares.split(batch.n_atoms.long().tolist(), dim=1)

    try:
        store = GraphStore(sample, potential.config)
        frames = in_order(over_frames(work, potential, store, range(len(sample)), head=head), done)
    finally:
        module.rigidity = before
    sums = torch.stack([frame.sum(dim=(1, 2)) for frame in frames])
    ratios = sums[:, 0] / sums[:, 1].clamp(min=1e-30)
    right = (ratios <= MOST_UNLIKELY * ratios.median()).tolist()
    wrong, expected, labels = torch.cat([f for f, kept in zip(frames, right) if kept], dim=1).flatten(1)
    usable = bool(wrong.any()) and bool(expected.any())
    scale = float((wrong.mean() / expected.mean()).sqrt()) if usable else 1.0
    return dataclasses.replace(
        facts,
        force_scale=scale,
        force_floor=force_floor(wrong, scale**2 * expected) if usable else 0.0,
        force_error=float(wrong.mean().sqrt()),
        typical_force=float(labels.mean().sqrt()),
    )


def _spread(parts: Sequence[Dataset], most_atoms: int, *, seed: int = 0) -> Dataset:
    """A random sample of each part, with at most its share of the atoms (one frame at least), joined."""
    frames = []
    for part in parts:
        left = most_atoms / len(parts)
        for place in np.random.default_rng(seed).permutation(len(part)):
            frame = part[int(place)]
            if left < frame.n_atoms and left < most_atoms / len(parts):
                break
            frames.append(frame)
            left -= frame.n_atoms
    return Dataset(tuple(frames), parts[0].name if parts else "data")
