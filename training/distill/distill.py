"""`distill`: a large model's forces carried over to a small, fast one (paper, 2.5 and 4.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ase.calculators.calculator import Calculator

from dpa2calc.ambient import own_modes
from dpa2calc.training.config.train import DEFAULTS, TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.options import MDCondition, conditions_of
from dpa2calc.training.exploration.structures import StartFrames

from .config import DistillConfig
from .loop import Distillation
from .result import DistillResult
from .setup import Student


@own_modes()
def distill(
    teacher: Calculator,
    start_frames: StartFrames,
    student: Student = "dpa1-l0",
    *,
    md: MDCondition | Mapping[str, object] | Sequence[MDCondition | Mapping[str, object]],
    output: PathLike,
    train: TrainConfig = DEFAULTS,
    config: DistillConfig | None = None,
    test: Dataset | None = None,
    progress: bool = True,
    **options: object,
) -> DistillResult:
    """Teach a small model what a large one knows, where the application needs it.

    Each round trains the student on all frames the teacher has labelled, runs molecular dynamics under the
    conditions `md`, compares student and teacher on the sampled frames, and adds those that deviate by
    more than `threshold`. It ends when the student is accurate on new frames, no longer improves, or
    after `max_rounds`. The same call on the same folder resumes where an earlier one was killed.

    Args:
        teacher: any ASE calculator with energies and forces.
        start_frames: structures to begin with, as a Dataset, Atoms or a file; labels are not used.
        student: a preset's name, a model configuration, or a potential or checkpoint to start from.
        md: one condition or several, see `MDCondition`.
        output: folder of all files; `labelled/` holds every frame that was learned from.
        train: how the student is trained in each round, see also `later_steps`.
        config, options: the loop's options, see `DistillConfig`, such as threshold=0.2, max_rounds=8.
        test: frames with reference labels, evaluated in each round, never learned from.

    Raises:
        ConfigError: a wrong option, or a folder that holds another distillation (what differs is named; a
            teacher is known by its weights), or in which another process is at work.
        DataError: the teacher fails on the start frames, the test frames hold other elements, or a file of
            the folder is damaged. OutputError: the folder cannot be written.
        TrainingError: the loss is not finite, or no trajectory reaches its first sample.

    Example:
        >>> teacher = DPA2Calculator("default", head="H2O-PBE0TS")
        >>> distill(teacher, "start.extxyz", md={"temperature": [300, 330]}, output="runs/water").student
    """
    chosen = (config or DistillConfig()).replace(**options)
    conditions = conditions_of(md)
    return Distillation(
        teacher, start_frames, student, conditions, train, chosen, output, test, progress
    ).run()
