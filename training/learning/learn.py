"""`active_learning`: a model asks for the labels that it needs, where your simulation goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ase.calculators.calculator import Calculator

from dpa2calc.ambient import own_modes
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.training.config.train import FINETUNE_DEFAULTS, FinetuneConfig
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.options import MDCondition, conditions_of
from dpa2calc.training.exploration.structures import StartFrames

from .config import LearnConfig
from .labels import label_source
from .loop import ActiveLearning
from .queue import LabelQueue
from .result import LearnResult


@own_modes()
def active_learning(
    model: Potential | PathLike,
    *,
    label: Calculator | LabelQueue | PathLike,
    start: StartFrames,
    md: MDCondition | Mapping[str, object] | Sequence[MDCondition | Mapping[str, object]],
    output: PathLike,
    train: FinetuneConfig = FINETUNE_DEFAULTS,
    config: LearnConfig | None = None,
    known: Dataset | None = None,
    test: Dataset | None = None,
    progress: bool = True,
    **options: object,
) -> LearnResult:
    """Fine-tune a model with as few labels as its own dynamics need.

    Each round fine-tunes the model on all labels, runs its molecular dynamics under the conditions `md`, has
    those frames labelled where it is least sure and that differ most from each other, and compares what it
    predicted for them with the labels. It ends when the doubt along fresh trajectories stays below
    `threshold`, or the `budget` of labels is spent. The same call on the same folder resumes where an
    earlier one was killed, or stopped to wait for labels.

    Args:
        model: a published model's name, a checkpoint's path, or a Potential.
        label: any ASE calculator with energies and forces; or, for labels that are made elsewhere, a folder
            or a `LabelQueue`.
        start: structures to begin with, as a Dataset, Atoms or a file; they are labelled first.
        md: one condition or several, see `MDCondition`.
        output: folder of all files; `labels/` holds every label.
        train: how the model is fine-tuned in each round, see also `later_steps`.
        config, options: the loop's options, see `LearnConfig`, such as budget=100, threshold=0.2.
        known: frames that the same source labelled before; learned from, never labelled again.
        test: frames with reference labels, evaluated in each round, never learned from.

    Returns:
        With the reason "waiting" where labels have to be made elsewhere before the same call can go on.

    Raises:
        ConfigError: a wrong option, a budget that the start frames exceed, or a folder that holds other work
            (what differs is named), or in which another process is at work.
        DataError: elements that the model does not know; labels that cannot be had or read, or that belong to
            another structure; a damaged file of the folder. OutputError: the folder cannot be written.
        TrainingError: the loss is not finite, or no trajectory reaches its first sample.

    Example:
        >>> from ase.calculators.emt import EMT
        >>> active_learning("default", label=EMT(), start="cu.extxyz", md={"temperature": 600},
        ...                 budget=50, output="runs/cu").model
    """
    chosen = (config or LearnConfig()).replace(**options)
    conditions = conditions_of(md)
    for name, data in (("the known frames", known), ("the test set", test)):
        if data is not None:
            check_frames(name, data)
    source = label_source(LabelQueue(label) if isinstance(label, (str, os.PathLike)) else label)
    potential = model if isinstance(model, Potential) else load_model(os.fspath(model))
    return ActiveLearning(
        potential, source, start, conditions, train, chosen, output, known, test, progress
    ).run()
