"""The record of a distillation on disk: what it is made of, its phase, and its finished rounds."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.atomic import write_json
from dpa2calc.files.identity import calculator_identity, differences, structures_identity
from dpa2calc.files.results import versions
from dpa2calc.labels.errors import Errors
from dpa2calc.model.config import ModelConfig, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers.frame_file import read_json
from dpa2calc.training.runs.identity import data_identity, model_part, start_part

from .config import DistillConfig, MDCondition
from .selection import DistillRound
from .setup import structures_digest, teacher_card

logger = logging.getLogger(__name__)
STATE_VERSION = 2  # 1 has cards of teacher and student, but no hashes of their weights


class DistillState:
    """`state.json` of one folder: written whole after each phase.

    Another teacher (by the hash of its weights), student or other start frames are refused; other options
    are allowed, and said, so that a run can resume with more rounds or a tighter threshold.
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
        test: Dataset | None,
    ):
        self.path = folder / "state.json"
        model = student.config if isinstance(student, Potential) else student
        self.identity = {
            "teacher": teacher_card(teacher),
            "student": {**to_dict(model), "heads": to_dict(model.heads[0].fitting)},
            "start frames": structures_digest(start),
        }
        # what must be the same to resume; `identity` is for the student's card
        self.content = {
            "teacher": calculator_identity(teacher),
            "student": {
                **model_part(model),
                **start_part(student if isinstance(student, Potential) else None),
            },
            "start frames": structures_identity(start),
        }
        del self.content["student"]["heads"]  # its head may get another name
        self.options = {
            "loop": dataclasses.asdict(config),
            "md": [c.stored() for c in conditions],
            "train": dataclasses.asdict(train),
            "test frames": None if test is None else data_identity(test),
        }
        self.rounds: list[DistillRound] = []

    def load(self) -> None:
        """Take the finished rounds of an earlier call, if there was one.

        Raises:
            ConfigError: it was of another teacher, student or other start frames. DataError: it is damaged.
        """
        folder = self.path.parent
        if not self.path.exists():
            return
        stored = read_json(self.path)
        version = stored.get("version") if isinstance(stored, dict) else None
        if version not in (1, STATE_VERSION):
            raise ConfigError(
                f"{self.path} has version {version!r}, this package reads 1 and {STATE_VERSION}; choose "
                "another output"
            )
        try:
            self._require_same(stored, folder)
            self._say_changes(stored["options"])
            self.rounds = [DistillRound.from_dict(r) for r in stored["rounds"]]
            if [r.number for r in self.rounds] != list(range(1, len(self.rounds) + 1)):
                raise ValueError("its rounds do not follow each other")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise DataError(
                f"{self.path} is damaged ({error!r}); put back a copy of it, or choose another output"
            ) from error
        logger.info("resuming after round %d of %s (%s)", len(self.rounds), folder, stored["phase"])

    def _require_same(self, stored: dict[str, Any], folder: Path) -> None:
        known = stored["version"] > 1
        asked: dict[str, Any] = self.content if known else plain(self.identity)
        for name, value in asked.items():
            old = stored["content" if known else "identity"][name]
            found = differences({name: old}, {name: value}) if known else []
            if found or not (known or old == value):
                cards = _difference(stored["identity"][name], plain(self.identity)[name])
                raise ConfigError(
                    f"{folder} holds a distillation with another {name.removesuffix('s')}; choose another "
                    f"output{cards or ': ' + '; '.join(found[:6])}"
                )
        if not known:
            logger.warning(
                "%s was written by an earlier version, which kept no hash of weights: whether those of the "
                "teacher are the same cannot be checked",
                self.path,
            )

    def _say_changes(self, stored: dict[str, Any]) -> None:
        for name, values in plain(self.options).items():
            old = stored.get(name, values)
            if name == "train":  # options that are younger than the state had their defaults then
                old = {**plain(dataclasses.asdict(TrainConfig())), **old, "device": values["device"]}
            if old != values:
                difference = _difference(old, values)
                logger.warning("resuming with other options than before (%s)%s", name, difference)

    def write(self, phase: str, number: int) -> None:
        """Keep the finished rounds, and say what is being done."""
        write_json(
            self.path,
            {
                "version": STATE_VERSION,
                "phase": phase,
                "round": number,
                "identity": self.identity,
                "content": self.content,
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
                "options": {name: self.options[name] for name in ("loop", "md", "train")},
                "rounds": len(self.rounds),
                "versions": versions("torch"),
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
    return ": " + ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in keys[:4]) if keys else ""
