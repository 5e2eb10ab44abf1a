"""What active learning in a folder is known by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ase import Atoms

from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import FinetuneConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.state import JSON, RoundsState, plain
from dpa2calc.training.runs.identity import model_part, start_part

from .config import LearnConfig
from .labels import LabelSource
from .selection import LearnRound


class LearnState(RoundsState[LearnRound]):
    """Source of labels, model (by the hash of its weights) and start frames: what a folder belongs to."""

    what: ClassVar[str] = "active learning"
    source: ClassVar[str] = "label"
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
        sets = {"known": known, "test": test}
        super().__init__(folder, start=start, config=config, conditions=conditions, train=train, **sets)
        label, weights = source.identity(), start_part(model)
        self.identity = {"label": plain(label), "model": plain(weights), **self.identity}
        own = {**model_part(model.config), **weights}
        self.content = {"label": label, "model": own, **self.content}

    def card(self, test: Errors | None, *, frames: int, spent: int) -> JSON:
        """What the new head says of how it learned."""
        card: JSON = {
            "learned_from": self.identity["label"],
            "active_learning": {"rounds": len(self.rounds), "frames": frames, "labels": spent},
        }
        return card if test is None else {**card, "test_errors": test.to_dict()}
