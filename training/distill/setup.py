"""What a distillation is made of: the student's configuration, and the teacher's card."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.model.config import HeadConfig, ModelConfig
from dpa2calc.model.config.presets import preset, preset_names
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.structures import elements_of

from .config import DistillConfig

Student = str | os.PathLike[str] | ModelConfig | Potential


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
        ConfigError: an unknown preset, a model with several heads, or one that lacks an element.
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
    if lacking := [symbol for symbol in symbols if symbol not in base.type_map]:
        raise ConfigError(
            f"the student has no type for {', '.join(lacking)}, which the start frames or md.structures "
            f"contain (its type_map: {', '.join(base.type_map)}); give it these elements too, or leave those "
            "frames out"
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
