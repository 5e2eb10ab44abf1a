"""What a distillation is known by on disk, and what it says of the student's origin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.files.identity import calculator_identity
from dpa2calc.labels.errors import Errors
from dpa2calc.model.config import ModelConfig, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.state import JSON, RoundsState
from dpa2calc.training.runs.identity import model_part, start_part

from .config import DistillConfig
from .selection import DistillRound
from .setup import config_of, teacher_card


class DistillState(RoundsState[DistillRound]):
    """Teacher (by the hash of its weights), student and start frames decide what a folder belongs to."""

    what: ClassVar[str] = "a distillation"
    source: ClassVar[str] = "teacher"
    record = DistillRound

    def __init__(
        self,
        folder: Path,
        *,
        teacher: Calculator,
        student: ModelConfig | Potential,
        start: Sequence[Atoms],
        config: DistillConfig,
        conditions: Sequence[MDCondition],
        train: TrainConfig,
        test: Dataset | None,
    ):
        super().__init__(folder, start=start, config=config, conditions=conditions, train=train, test=test)
        model = config_of(student)
        self.identity = {
            "teacher": teacher_card(teacher),
            "student": {**to_dict(model), "heads": to_dict(model.heads[0].fitting)},
            **self.identity,
        }
        # what must be the same to resume; `identity` is for the student's card
        begun = student if isinstance(student, Potential) else None
        own = {**model_part(model), **start_part(begun)}
        del own["heads"]  # its head may get another name
        self.content = {"teacher": calculator_identity(teacher), "student": own, **self.content}

    def card(self, final: Errors | None, *, frames: int, seed: int) -> JSON:
        """What the student's head says of its teacher and of how it learned."""
        provenance = self.provenance()
        errors = final or self.rounds[-1].errors
        return {
            "distilled_from": provenance["teacher"],
            "distillation": {
                "rounds": len(self.rounds),
                "frames": frames,
                "errors_against_teacher": errors.to_dict(),
                "seed": seed,
                "versions": provenance["versions"],
            },
        }
