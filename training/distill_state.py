"""The record of a distillation on disk: what it is made of, its phase, and its finished rounds."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import ModelConfig, to_dict
from dpa2calc.model.potential import Potential

from .config import TrainConfig
from .distill_config import DistillConfig, MDCondition
from .distill_round import DistillRound
from .distill_setup import structures_digest, teacher_card, versions
from .frame_file import read_json, write_json
from .metrics import Errors

logger = logging.getLogger(__name__)
STATE_VERSION = 1


class DistillState:
    """`state.json` of one folder: written whole after each phase.

    Another teacher, student or other start frames are refused; other options are allowed, and said, so
    that a run can go on with more rounds or a tighter threshold.
    """

    def __init__(
        self,
        folder: Path,
        *,
        teacher: Any,
        student: ModelConfig | Potential,
        start: Sequence[Atoms],
        config: DistillConfig,
        conditions: Sequence[MDCondition],
        train: TrainConfig,
    ):
        self.path = folder / "state.json"
        model = student.config if isinstance(student, Potential) else student
        self.identity = {
            "teacher": teacher_card(teacher),
            "student": {**to_dict(model), "heads": to_dict(model.heads[0].fitting)},
            "start frames": structures_digest(start),
        }
        self.options = {
            "loop": dataclasses.asdict(config),
            "md": [dataclasses.asdict(c) for c in conditions],
            "train": dataclasses.asdict(train),
        }
        self.rounds: list[DistillRound] = []
        if self.path.exists():
            self._read(folder)

    def _read(self, folder: Path) -> None:
        stored = read_json(self.path)
        if stored.get("version") != STATE_VERSION:
            raise ConfigError(
                f"{self.path} has version {stored.get('version')}, this package writes {STATE_VERSION}; "
                "choose another output"
            )
        ours = plain(self.identity)
        for name, value in ours.items():
            if stored["identity"][name] != value:
                raise ConfigError(
                    f"{folder} holds a distillation with another {name.removesuffix('s')}; choose another "
                    f"output{_difference(stored['identity'][name], value)}"
                )
        for name, values in plain(self.options).items():
            if stored["options"][name] != values:
                logger.warning(
                    "going on with other options than before (%s)%s",
                    name,
                    _difference(stored["options"][name], values),
                )
        self.rounds = [DistillRound.from_dict(r) for r in stored["rounds"]]
        logger.info("going on after round %d of %s (%s)", len(self.rounds), folder, stored["phase"])

    def write(self, phase: str, number: int) -> None:
        """Keep the finished rounds, and say what is being done."""
        write_json(
            self.path,
            {
                "version": STATE_VERSION,
                "phase": phase,
                "round": number,
                "identity": self.identity,
                "options": self.options,
                "rounds": [r.to_dict() for r in self.rounds],
            },
        )

    def provenance(self) -> dict[str, Any]:
        """What the student's checkpoint says of its origin."""
        return plain(
            {
                "teacher": self.identity["teacher"],
                "start_frames": self.identity["start frames"],
                "options": self.options,
                "rounds": len(self.rounds),
                "versions": versions(),
            }
        )

    def card(self, final: Errors | None, *, frames: int, seed: int) -> dict[str, Any]:
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


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples as lists, and nothing that JSON does not know."""
    return dict(json.loads(json.dumps(values, default=str)))


def _difference(old: Any, new: Any) -> str:
    """The entries that differ, for a message."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return ""
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    return ": " + ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in keys[:4])
