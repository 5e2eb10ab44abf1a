"""What a distillation is made of: start structures, the student's configuration, trajectories, provenance."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.model.config.presets import preset, preset_names
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.structures.lattice import is_crystal
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike, iread_atoms
from dpa2calc.training.data.sets import by_number

from .close_contacts import close_contact
from .config import DistillConfig, MDCondition
from .sampling import Trajectory, bare

StartFrames: TypeAlias = Dataset | Sequence[Atoms] | Atoms | PathLike
Student = str | os.PathLike[str] | ModelConfig | Potential


def start_structures(frames: StartFrames) -> list[Atoms]:
    """Bare structures from a dataset, Atoms, or a file; a DataError where there is none."""
    found: Iterable[Atoms]
    if isinstance(frames, Dataset):
        found = (frame.atoms() for frame in frames)
    elif isinstance(frames, Atoms):
        found = (frames,)
    elif isinstance(frames, (str, os.PathLike)):
        found = iread_atoms(frames)
    else:
        found = frames
    start = [bare(atoms) for atoms in found]
    if not start or any(len(a) == 0 for a in start):
        raise DataError("there are no start frames, or one has no atoms; give at least one structure")
    return start


def condition_structures(condition: MDCondition, start: list[Atoms]) -> list[Atoms]:
    """Where the trajectories of a condition start; a ConfigError for NPT without a periodic cell."""
    found = [a for path in condition.structures for a in start_structures(path)] or start
    if condition.ensemble == "npt":
        open_ones = [a for a in found if not is_crystal(a)]
        if open_ones:
            raise ConfigError(
                f"md.ensemble = 'npt' needs cells periodic in three directions, but {open_ones[0].symbols} "
                f"has pbc {open_ones[0].pbc.tolist()}; use nvt, or name other structures"
            )
    return found


def elements_of(structures: Iterable[Atoms]) -> tuple[str, ...]:
    """Chemical symbols, by atomic number."""
    return by_number({s for a in structures for s in a.symbols})


def all_elements(start: list[Atoms], conditions: Iterable[MDCondition]) -> tuple[str, ...]:
    """Elements of the start frames and of the structures that the conditions name."""
    return elements_of([*start, *(a for c in conditions for a in condition_structures(c, start))])


def perturbed(structures: list[Atoms], config: DistillConfig) -> list[Atoms]:
    """Each structure, followed by its copies with random displacements and, in a full cell, strains.

    After them come `config.contacts` copies in which two atoms are close.
    """
    rng = np.random.default_rng(config.seed)
    out = []
    for atoms in structures:
        out.append(atoms)
        for _ in range(config.perturbed):
            copied = atoms.copy()
            if is_crystal(copied):
                strain = rng.normal(0.0, config.strain, (3, 3))
                deformation = np.eye(3) + 0.5 * (strain + strain.T)
                copied.set_cell(copied.cell.array @ deformation, scale_atoms=True)
            copied.positions += rng.normal(0.0, config.displacement, copied.positions.shape)
            out.append(copied)
        contacts = (close_contact(atoms, rng) for _ in range(config.contacts))
        out.extend(c for c in contacts if c is not None)
    return out


def config_of(model: ModelConfig | Potential) -> ModelConfig:
    """The configuration itself, or that of a potential."""
    return model.config if isinstance(model, Potential) else model


def check_test_elements(test: Dataset | None, student: ModelConfig | Potential) -> None:
    """Raise a DataError, before any work, for test elements that the student will not know, or bad labels."""
    if test is None:
        return
    check_frames("the test set", test)
    known = config_of(student).type_map
    new = [e for e in test.elements if e not in known]
    if new:
        raise DataError(
            f"the test frames contain {', '.join(new)}, which the start frames and md.structures do not; the "
            f"student will know {', '.join(known)}. Add start frames with these elements, or leave those "
            "test frames out"
        )


def student_model(
    student: Student, structures: Iterable[Atoms], teacher: Calculator, config: DistillConfig
) -> ModelConfig | Potential:
    """The student's configuration with one head for all elements, or a potential to start from.

    Raises:
        ConfigError: an unknown preset, or a model with several heads.
    """
    symbols = elements_of(structures)
    if isinstance(student, (str, os.PathLike)) and student not in preset_names():
        if not os.path.isfile(student):
            raise ConfigError(
                f"student = {str(student)!r} is neither preset nor file; presets: {', '.join(preset_names())}"
            )
        student = load_model(os.fspath(student))
    if isinstance(student, (str, os.PathLike)):
        base = preset(os.fspath(student), symbols)
    else:
        base = config_of(student)
        if len(base.heads) != 1:
            names = ", ".join(h.name for h in base.heads)
            raise ConfigError(
                f"the student must have one head, but this model has {len(base.heads)}: {names}"
            )
    head = HeadConfig(
        name=config.name or str(getattr(teacher, "head", "") or "student"),
        elements=symbols,
        functional=config.functional,
        description=config.description or f"distilled from {_teacher_name(teacher)}",
        fitting=base.heads[0].fitting,
    )
    if isinstance(student, Potential):
        student = copy.deepcopy(student)
        student.config = base.with_heads((head,))
        return student
    return base.with_heads((head,))


def _teacher_name(teacher: Calculator) -> str:
    parameters = getattr(teacher, "parameters", {}) or {}
    model = parameters.get("model") if isinstance(parameters, dict) else None
    words = [type(teacher).__name__, str(model or ""), str(getattr(teacher, "head", "") or "")]
    return " ".join(word for word in words if word)


def teacher_card(teacher: Calculator) -> dict[str, object]:
    """Class, settings, model and head of any ASE calculator, ready for JSON."""
    parameters = dict(getattr(teacher, "parameters", {}) or {})
    for name in ("device", "skin"):  # results do not depend on them
        parameters.pop(name, None)
    kind = type(teacher)
    return {
        "calculator": f"{kind.__module__}.{kind.__qualname__}",
        "name": _teacher_name(teacher),
        "parameters": json.loads(json.dumps(parameters, default=str)),
    }


def structures_digest(structures: Iterable[Atoms]) -> str:
    """Changes when a structure does."""
    digest = hashlib.sha256()
    for atoms in structures:
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def plan_trajectories(
    number: int, conditions: Sequence[MDCondition], structures: Sequence[list[Atoms]], config: DistillConfig
) -> list[Trajectory]:
    """All trajectories of a round; the same arguments always give the same ones."""
    plan: list[Trajectory] = []
    for driver in config.drivers:
        for index, (condition, pool) in enumerate(zip(conditions, structures)):
            rng = np.random.default_rng([config.seed, number, index, int(driver == "student")])
            order = rng.permutation(len(pool))
            points = [point for point in condition.points() for _ in range(condition.trajectories)]
            for taken, (temperature, pressure) in enumerate(points):
                plan.append(
                    Trajectory(
                        number=len(plan) + 1,
                        round=number,
                        driver=driver,
                        condition=condition,
                        temperature=temperature,
                        pressure=pressure,
                        start=pool[order[taken % len(pool)]],
                        seed=int(rng.integers(2**31)),
                    )
                )
    return plan


def later_training(train: TrainConfig, config: DistillConfig, *, steps: int = 0) -> TrainConfig:
    """Training options of a round after the first, or of the last training when `steps` is given."""
    rate = config.later_learning_rate or train.learning_rate
    steps = steps or config.later_steps or train.steps
    return dataclasses.replace(
        train,
        steps=steps,
        learning_rate=rate,
        learning_rate_stop=min(train.learning_rate_stop, rate),
        warmup_steps=min(train.warmup_steps, steps // 5),
    )
