"""Training of DPA-2 models from Python (installed as dpa2calc.training).

from dpa2calc.training import Dataset, TrainConfig, train

data = Dataset.read("train.extxyz", name="water")
result = train("small", data, TrainConfig(steps=2000), output="runs/water")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import DataReport, check_dataset, clean
    from .config import FinetuneConfig, TrainConfig
    from .dataset import Dataset, Frame
    from .datasets import load_registered, registered_sets, training_collection
    from .distill import distill
    from .distill_config import DistillConfig, MDCondition
    from .distill_result import DistillResult
    from .distributed import Processes
    from .evaluate import Evaluation, evaluate
    from .finetune import FinetuneResult, finetune, rank_heads
    from .history import History
    from .labels import LabelKeys
    from .learning_curve import LearningCurve, fine_tuned, from_scratch, learning_curve
    from .metrics import Errors
    from .paper_sets import paper_sets
    from .preparation import TrainingSet
    from .run import model_for, pretrain, train
    from .train_result import TrainResult

# Public name -> module. Imported when first used, so that the command line reads its options without torch.
_PUBLIC = {
    "check_dataset": "checks",
    "clean": "checks",
    "DataReport": "checks",
    "Dataset": "dataset",
    "distill": "distill",
    "DistillConfig": "distill_config",
    "DistillResult": "distill_result",
    "Errors": "metrics",
    "evaluate": "evaluate",
    "Evaluation": "evaluate",
    "fine_tuned": "learning_curve",
    "finetune": "finetune",
    "FinetuneConfig": "config",
    "FinetuneResult": "finetune",
    "Frame": "dataset",
    "from_scratch": "learning_curve",
    "History": "history",
    "LabelKeys": "labels",
    "learning_curve": "learning_curve",
    "LearningCurve": "learning_curve",
    "load_registered": "datasets",
    "MDCondition": "distill_config",
    "model_for": "run",
    "paper_sets": "paper_sets",
    "pretrain": "run",
    "Processes": "distributed",
    "rank_heads": "finetune",
    "registered_sets": "datasets",
    "train": "run",
    "TrainConfig": "config",
    "training_collection": "datasets",
    "TrainingSet": "preparation",
    "TrainResult": "train_result",
}

__all__ = [
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
    "LearningCurve",
    "MDCondition",
    "Processes",
    "TrainConfig",
    "TrainResult",
    "TrainingSet",
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
    "paper_sets",
    "pretrain",
    "rank_heads",
    "registered_sets",
    "train",
    "training_collection",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


class _Package(ModuleType):
    """Keeps the functions `evaluate`, `finetune`, ... from being hidden by the modules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:  # also done by the import of a submodule
        hidden = name in _PUBLIC and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if hidden else value)


sys.modules[__name__].__class__ = _Package
