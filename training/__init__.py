"""Training of DPA-2 models from Python (installed as dpa2calc.training).

from dpa2calc.training import Dataset, TrainConfig, train

data = Dataset.read("train.extxyz", name="water")
result = train("small", data, TrainConfig(steps=2000), output="runs/water")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpa2calc.labels.names import LabelKeys
    from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
    from dpa2calc.training.data.checks.near_copies import near_copies
    from dpa2calc.training.data.checks.report import DataReport, check_dataset, clean
    from dpa2calc.training.data.collection.paper_sets import paper_sets
    from dpa2calc.training.data.collection.registry import (
        load_registered,
        registered_sets,
        training_collection,
    )
    from dpa2calc.training.data.corrections import Corrections
    from dpa2calc.training.data.dataset import Dataset, Frame
    from dpa2calc.training.data.sets import TrainingSet, model_for
    from dpa2calc.training.distill.config import DistillConfig
    from dpa2calc.training.distill.distill import distill
    from dpa2calc.training.distill.result import DistillResult
    from dpa2calc.training.exploration.options import MDCondition
    from dpa2calc.training.finetune.finetune import FinetuneResult, finetune
    from dpa2calc.training.finetune.ranking import rank_heads
    from dpa2calc.training.fit.run import pretrain, train
    from dpa2calc.training.learning.config import LearnConfig
    from dpa2calc.training.learning.learn import active_learning
    from dpa2calc.training.learning.queue import LabelQueue
    from dpa2calc.training.learning.result import LearnResult
    from dpa2calc.training.runs.log import History
    from dpa2calc.training.runs.processes import Processes
    from dpa2calc.training.runs.result import TrainResult

    from .evaluate import Errors, Evaluation, evaluate
    from .learning_curve import LearningCurve, fine_tuned, from_scratch, learning_curve
    from .uncertainty import add_uncertainty

# Public names by module, from here (a dot more: from the core). Imported when first used, so that the command
# line reads its options without torch.
_MODULES = {
    "config.train": ("FinetuneConfig", "TrainConfig"),
    "data.checks.near_copies": ("near_copies",),
    "data.checks.report": ("DataReport", "check_dataset", "clean"),
    "data.collection.paper_sets": ("paper_sets",),
    "data.collection.registry": ("load_registered", "registered_sets", "training_collection"),
    "data.corrections": ("Corrections",),
    "data.dataset": ("Dataset", "Frame"),
    "data.sets": ("TrainingSet", "model_for"),
    "distill.config": ("DistillConfig",),
    "distill.distill": ("distill",),
    "distill.result": ("DistillResult",),
    "exploration.options": ("MDCondition",),
    "evaluate": ("Errors", "Evaluation", "evaluate"),
    "finetune.finetune": ("FinetuneResult", "finetune"),
    "finetune.ranking": ("rank_heads",),
    "fit.run": ("pretrain", "train"),
    "learning_curve": ("LearningCurve", "fine_tuned", "from_scratch", "learning_curve"),
    "learning.config": ("LearnConfig",),
    "learning.learn": ("active_learning",),
    "learning.queue": ("LabelQueue",),
    "learning.result": ("LearnResult",),
    "runs.log": ("History",),
    "runs.processes": ("Processes",),
    "runs.result": ("TrainResult",),
    ".labels.names": ("LabelKeys",),
    "uncertainty": ("add_uncertainty",),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Corrections",
    "DataReport",
    "Dataset",
    "DistillConfig",
    "DistillResult",
    "Errors",
    "Evaluation",
    "FinetuneConfig",
    "FinetuneResult",
    "Frame",
    "History",
    "LabelKeys",
    "LabelQueue",
    "LearnConfig",
    "LearnResult",
    "LearningCurve",
    "MDCondition",
    "Processes",
    "TrainConfig",
    "TrainResult",
    "TrainingSet",
    "active_learning",
    "add_uncertainty",
    "check_dataset",
    "clean",
    "distill",
    "evaluate",
    "fine_tuned",
    "finetune",
    "from_scratch",
    "learning_curve",
    "load_registered",
    "model_for",
    "near_copies",
    "paper_sets",
    "pretrain",
    "rank_heads",
    "registered_sets",
    "train",
    "training_collection",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


class _Package(ModuleType):
    """Keeps the functions `evaluate`, `finetune`, ... from being hidden by the modules of the same name."""

    def __setattr__(self, name: str, value: object) -> None:  # also done by the import of a submodule
        hidden = name in _PUBLIC and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if hidden else value)


sys.modules[__name__].__class__ = _Package
