"""What a training file (TOML, or deepmd-kit's input.json) says: model, sets, options, output folder."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.atomic import check_writable
from dpa2calc.files.options import convert, parse_options, read_toml
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import option_types, typed, unknown_key
from dpa2calc.model.config import ModelConfig, check
from dpa2calc.model.config.presets import preset, preset_names
from dpa2calc.training.data.corrections import moved
from dpa2calc.training.data.dataset import Dataset, check_set_names
from dpa2calc.training.data.readers import PathLike

from .model import changed_descriptor, trained_model
from .sections import ModelSection, SetSection
from .train import FEWEST_TO_CHOOSE, TrainConfig

if TYPE_CHECKING:
    from dpa2calc.training.data.sets import TrainingSet

logger = logging.getLogger(__name__)
Options = TypeVar("Options", bound=TrainConfig, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[Options]):
    """Training from the weights that a run, or the stage before, ended with: `[stages.NAME]`.

    `config` is the run's with the stage's changes; `weights` are those of the sets that differ ("*": of all
    others).
    """

    config: Options
    weights: dict[str, float]

    def weighted(self, sets: Mapping[str, TrainingSet]) -> dict[str, TrainingSet]:
        """The sets with the stage's weights."""
        others = self.weights.get("*")
        return {
            name: dataclasses.replace(item, weight=self.weights.get(name, others or item.weight))
            for name, item in sets.items()
        }


@dataclass(frozen=True, kw_only=True)
class RunFile(Generic[Options]):
    """A whole file, checked before anything runs."""

    config: Options
    stages: dict[str, Stage[Options]]
    sets: dict[str, SetSection]
    model: ModelSection | ModelConfig | str
    output: Path
    root: Path


def read_run_file(
    path: PathLike | None,
    cls: type[Options],
    *,
    changes: Mapping[str, object] | None = None,
    set_changes: Mapping[str, object] | None = None,
    model: str | None = None,
    output: str | None = None,
) -> RunFile[Options]:
    """Read a TOML file or deepmd-kit's input.json, and put the command line's options over it.

    Args:
        cls: the options' dataclass, `TrainConfig` or `FinetuneConfig`.
        changes: options of `cls` that take precedence. set_changes: options of `SetSection` for a file
            with one set, or for a set that is given without a file.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong; the key is named.
    """
    values, root = dict[str, object](), Path.cwd()
    if path is not None:
        require_file(path := Path(path))
        root = path.resolve().parent
        values = _read_deepmd(path, cls) if path.suffix in (".json", ".yaml", ".yml") else read_toml(path)
    values = _over(values, changes or {})
    values |= {name: value for name, value in (("model", model), ("output", output)) if value is not None}
    known = ["model", "sets", "output", "data", *(["stages"] if cls is TrainConfig else [])]
    check_keys(values, [*option_types(cls), *known], "the run's files")
    stages = _table(values.pop("stages", {}), "stages")
    sets = _table(values.pop("sets", {}), "sets")
    if set_changes:
        sets = _with_set_changes(sets, set_changes)
    given = values.pop("model", "small" if cls is TrainConfig else "default")
    folder, data_root = values.pop("output"), values.pop("data", ".")
    if not sets:
        raise ConfigError("there is no [sets.NAME] section with train = [...]; name the training data")
    check_set_names(sets)
    sections = {n: parse_options(SetSection, _section(n, s), f"sets.{n}") for n, s in sets.items()}
    check_set_names((section.head for section in sections.values() if section.head), "head")
    return RunFile(
        config=parse_options(cls, values),
        stages={n: _stage(n, stage, cls, values, changes or {}, sections) for n, stage in stages.items()},
        sets=sections,
        model=_model_section(given),
        output=Path(convert(str, folder, "output")),
        root=root / convert(str, data_root, "data"),
    )


def require_file(path: Path) -> None:
    """Raise a ConfigError where there is no such file."""
    if not os.path.isfile(path):
        raise ConfigError(f"there is no file {path}")


def check_keys(values: Mapping[str, object], known: list[str], what: str) -> None:
    """Raise a ConfigError for an unknown key, or where there is no folder for `what` the run makes."""
    for key, value in values.items():
        if key not in known:
            raise ConfigError(unknown_key(key, value, known))
    if values.get("output") in (None, ""):
        raise ConfigError(f"output is missing; name a folder for {what}")


def _over(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Options with others over them; a number of steps puts aside a length in minutes, which would win."""
    by_steps = {"minutes": 0} if "steps" in changes and "minutes" not in changes else {}
    return {**values, **by_steps, **changes}


def _table(value: object, key: str) -> dict[str, object]:
    return dict(typed(dict, value, key))


def _section(name: str, value: object) -> dict[str, object]:
    """A `[sets.NAME]` table; `registered = true` fills in files, head, weight and card."""
    section = _table(value, f"sets.{name}")
    if section.get("registered") is not True:
        return section
    from dpa2calc.training.data.collection.registry import registered_sets

    known = registered_sets()
    if name not in known:
        raise ConfigError(
            f"sets.{name}.registered = true, but the collection has no set of that name; it has "
            f"{', '.join(known)}"
        )
    entry = known[name]
    filled = {
        "train": [f"{name}/train.extxyz.xz"],
        "test": [f"{name}/test.extxyz.xz"],
        "head": entry.head,
        "weight": entry.weight,
        "functional": entry.functional,
        "description": entry.domain,
        "source": f"{entry.source}; {entry.citation}",
        "licence": entry.licence or "none stated",
        **entry.corrections,
    }
    return {**filled, **section}


def _stage(
    name: str,
    value: object,
    cls: type[Options],
    run: Mapping[str, object],
    changes: Mapping[str, object],
    sets: Mapping[str, SetSection],
) -> Stage[Options]:
    """A `[stages.NAME]` table, over the run's options and under the command line's."""
    check(re.fullmatch(r"[\w-]+", name) is not None, "stages", name, "names of letters, digits, - and _")
    own = _table(value, f"stages.{name}")
    weights = convert(dict[str, float], own.pop("weights", {}), f"stages.{name}.weights")
    for key, weight in weights.items():
        if key not in (*sets, "*"):
            raise ConfigError(unknown_key(f"stages.{name}.weights.{key}", weight, list(sets)))
        check(weight > 0, f"stages.{name}.weights.{key}", weight, "above 0")
    before = {**run, "shared_steps": 0}  # which are for a run that starts without weights
    config = parse_options(cls, _over(_over(before, own), changes), f"stages.{name}")
    return Stage(config=config, weights=weights)


def _read_deepmd(path: Path, cls: type[TrainConfig]) -> dict[str, object]:
    """deepmd-kit's input.json in this package's words; options without effect are reported."""
    from dpa2calc.deepmd.input_json import read_input

    given = read_input(path)
    for key in given.ignored:
        logger.warning("%s: %s", path, key if ": " in key else f"{key} is ignored")
    sets = {
        name: {"train": data.training, "validation": data.validation, "weight": data.weight}
        for name, data in given.data.items()
    }
    options = {key: value for key, value in given.training.items() if key in option_types(cls)}
    return {**options, "sets": sets, "model": given.config}


def _with_set_changes(sets: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    if len(sets) > 1:
        raise ConfigError(
            f"{', '.join('--' + c for c in changes)} cannot be given on the command line for a file with "
            f"several sets ({', '.join(sets)}); write them into the file"
        )
    name = next(iter(sets), str(changes.get("head") or "Default"))
    return {name: {**_table(sets.get(name, {}), f"sets.{name}"), **changes}}


def _model_section(value: object) -> ModelSection | ModelConfig | str:
    if isinstance(value, (str, ModelConfig)):
        return value
    return parse_options(ModelSection, _table(value, "model"), "model")


def check_run(run: RunFile[TrainConfig]) -> None:
    """Raise a ConfigError before any set is read where a file, the model or a part of it is missing."""
    check_paths(run)
    if isinstance(run.model, ModelSection) and run.model.start:
        trained_model(run.model.start, run.root)
    elif isinstance(run.model, ModelSection):
        changed_descriptor(preset(run.model.preset, run.model.type_map or ("H",)), run.model)
    elif isinstance(run.model, str) and run.model not in preset_names():
        trained_model(run.model, run.root)


def check_paths(run: RunFile[TrainConfig]) -> None:
    """Raise a ConfigError for a missing file of frames, an OutputError for a folder without permission."""
    check_writable(run.output, folder=True)
    for name, section in run.sets.items():
        for key in ("train", "validation", "test"):
            for path in getattr(section, key):
                if not expanded(path, run.root):
                    place = run.root / path if path else "file of an empty name"
                    raise ConfigError(f"sets.{name}.{key}: there is no {place}")
        if not section.train:
            raise ConfigError(
                f"sets.{name}.train (`systems` of an input.json) is empty; name files or folders with "
                "training frames"
            )


def load_sets(run: RunFile[TrainConfig]) -> tuple[dict[str, TrainingSet], dict[str, Dataset]]:
    """Read, check, clean and split all sets of a file: training sets by name, and test sets by name.

    Raises:
        ConfigError: see `check_run`.
        DataError: a file is damaged, or frames are unfit for training; they are named.
    """
    from dpa2calc.training.data.checks.report import check_frames
    from dpa2calc.training.data.sets import TrainingSet

    check_run(run)
    parts = {}
    for name, section in run.sets.items():
        data, held = _train_and_test(name, section, run.root)
        data = _clean(name, section, data)
        if section.max_frames:
            data = data.sample(min(section.max_frames, len(data)), seed=run.config.seed)
        if section.validation:
            held["validation"] = _read(section.validation, run.root, name, section, partial=True)
        for key, frames in held.items():
            check_frames(f"sets.{name}.{key}", frames)
        parts[name] = data, held
    _hold_out(run, parts)
    training = {
        name: TrainingSet(data, held.get("validation"), head=section.head or name, weight=section.weight)
        for (name, section), (data, held) in zip(run.sets.items(), parts.values())
    }
    return training, {name: held["test"] for name, (_, held) in parts.items() if "test" in held}


def _hold_out(run: RunFile[TrainConfig], parts: dict[str, tuple[Dataset, dict[str, Dataset]]]) -> None:
    """Take validation frames from the sets that name none, unless there would be too few to choose by."""
    shares = {
        name: run.sets[name].validation_fraction
        for name, (data, held) in parts.items()
        if "validation" not in held and len(data) >= 20
    }
    named = sum(len(held["validation"]) for _, held in parts.values() if "validation" in held)
    planned = named + sum(share * len(parts[name][0]) for name, share in shares.items())
    if planned < FEWEST_TO_CHOOSE:
        if any(shares.values()):
            logger.info(
                "all frames are trained on and the last weights kept: validation_fraction holds out %.0f, "
                "and fewer than %d frames cannot say which weights are best", planned, FEWEST_TO_CHOOSE
            )  # fmt: skip
        return
    for name, share in shares.items():
        if share > 0:
            (data, held), section = parts[name], run.sets[name]
            rest, taken = data.split(1.0 - share, seed=section.split_seed, by_group=section.by_group)
            parts[name] = rest, {**held, "validation": taken}


def _clean(name: str, section: SetSection, data: Dataset) -> Dataset:
    """The training frames, looked at, without those that the section drops."""
    from dpa2calc.training.data.checks.report import (
        MISFIT,
        check_dataset,
        clean,
        mark_checked,
        require_sound,
    )
    from dpa2calc.training.data.sets import check_labels

    check_labels(f"set {name!r}", data, None)  # which head it trains is not known yet
    report = check_dataset(data)
    logger.info("%s", report.summary())
    try:
        data, dropped = clean(data, report, drop=section.drop, frames=section.drop_frames)
    except DataError as error:
        raise DataError(f"sets.{name}: {error}") from error
    for kind in sorted({f.kind for f in dropped}):
        places = {f.frame for f in dropped if f.kind == kind}
        what = "stresses" if kind == MISFIT else "frames"
        logger.warning("%s: left out %d %s: %s", name, len(places), what, kind)
    gone = {f.frame for f in dropped}
    kept = tuple(f for f in report.findings if f.frame not in gone)
    require_sound(dataclasses.replace(report, findings=kept))
    mark_checked(data)
    return data


def _train_and_test(name: str, section: SetSection, root: Path) -> tuple[Dataset, dict[str, Dataset]]:
    """Training frames, and test frames if there are any; near copies of training frames are moved to them."""
    train = _read(section.train, root, name, section)
    if not section.test:
        return train, {}
    train, test = moved(
        train,
        _read(section.test, root, name, section, partial=True),
        to_train=section.test_to_train,
        drop_test=section.drop_test_frames,
        where=f"sets.{name}",
    )
    return train, {"test": test}


def _read(
    paths: tuple[str, ...], root: Path, name: str, section: SetSection, *, partial: bool = False
) -> Dataset:
    files = [str(file) for path in paths for file in expanded(path, root)]
    return section.corrections.apply(Dataset.read(files, name=name, keys=section.keys), partial=partial)
