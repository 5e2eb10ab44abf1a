"""Training of DPA-2 models from Python (installed as dpa2calc.training).

from dpa2calc.training import Dataset, TrainConfig, train

data = Dataset.read("train.extxyz", name="water")
result = train("small", data, TrainConfig(steps=2000), output="runs/water")
"""

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
