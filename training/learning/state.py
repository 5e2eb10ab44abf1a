"""What active learning in a folder is known by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ase import Atoms

from dpa2calc.files.identity import structures_identity
from dpa2calc.files.results import versions
from dpa2calc.labels.errors import Errors
from dpa2calc.model.config import to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import FinetuneConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.state import JSON, RoundsState, plain
from dpa2calc.training.exploration.structures import structures_digest
from dpa2calc.training.runs.identity import data_identity, model_part, start_part

from .config import LearnConfig
from .labels import LabelSource
from .selection import LearnRound


class LearnState(RoundsState[LearnRound]):
    """Source of labels, model (by the hash of its weights) and start frames: what a folder belongs to."""

    what: ClassVar[str] = "active learning"
    record = LearnRound
    train = FinetuneConfig

    def __init__(
        self,
        folder: Path,
        *,
        model: Potential,
        source: LabelSource,
        start: Sequence[Atoms],
        config: LearnConfig,
        conditions: Sequence[MDCondition],
        train: FinetuneConfig,
        known: Dataset | None,
        test: Dataset | None,
    ):
        super().__init__(folder)
        self.content = {
            "label": source.identity(),
            "model": {**model_part(model.config), **start_part(model)},
            "start frames": structures_identity(start),
        }
        self.identity = {
            "label": plain(self.content["label"]),
            "model": plain(start_part(model)),
            "start frames": structures_digest(start),
        }
        self.options = {
            "loop": to_dict(config),
            "md": [c.stored() for c in conditions],
            "train": to_dict(train),
            "known frames": None if known is None else data_identity(known),
            "test frames": None if test is None else data_identity(test),
        }

    def provenance(self) -> JSON:
        """What the model's checkpoint says of its origin."""
        return plain(
            {
                "label": self.identity["label"],
                "start_frames": self.identity["start frames"],
                "options": {name: self.options[name] for name in ("loop", "md", "train")},
                "rounds": len(self.rounds),
                "versions": versions("torch"),
            }
        )

    def card(self, test: Errors | None, *, frames: int, spent: int) -> JSON:
        """What the new head says of how it learned."""
        card: JSON = {
            "learned_from": self.identity["label"],
            "active_learning": {"rounds": len(self.rounds), "frames": frames, "labels": spent},
        }
        return card if test is None else {**card, "test_errors": test.to_dict()}
