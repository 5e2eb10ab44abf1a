"""The sets of a run, checked against the heads and elements of a model; and the model that sets ask for."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from ase.data import atomic_numbers

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.typed import typed
from dpa2calc.labels.names import advice
from dpa2calc.model.config import FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.config.presets import preset

from .checks.near_copies import content
from .checks.report import check_frames
from .checks.stress_misfit import stress_misfits
from .dataset import Dataset, Frame, check_set_names, require_dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """One dataset of a run.

    Attributes:
        train: frames to train on.
        validation: one set, or several by name, that steer the choice of the best weights.
        head: the head it trains; the set's own name when empty. Sets labelled with identical DFT
            settings should share a head.
        weight: proportional to the chance of being drawn, and to its share in the validation score.
    """

    train: Dataset
    validation: Dataset | Mapping[str, Dataset] | None = None
    head: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_dataset(self.train, "training frames")
        for part in self.validation_sets().values():
            require_dataset(part, "validation")

    def validation_sets(self) -> dict[str, Dataset]:
        """The validation sets by name ("" for a single one)."""
        if self.validation is None:
            return {}
        return dict(self.validation) if isinstance(self.validation, Mapping) else {"": self.validation}


def whole_sets(sets: Mapping[str, TrainingSet | Dataset]) -> dict[str, TrainingSet]:
    """The sets with a TrainingSet around each bare dataset.

    Raises:
        DataError: something else than datasets by name.
    """
    if not isinstance(sets, Mapping):
        raise DataError(
            f"sets must be datasets by name, not {type(sets).__name__}: {{'ice': data}}; train takes one set"
        )
    return {n: s if isinstance(s, TrainingSet) else TrainingSet(s) for n, s in sets.items()}


@dataclass(frozen=True)
class TrainingData:
    """All sets of a run by name, checked against the potential's heads and type map."""

    sets: Mapping[str, TrainingSet]
    heads: Mapping[str, int] = field(default_factory=dict)  # set name -> position of its head

    @classmethod
    def of(cls, sets: Mapping[str, TrainingSet | Dataset], config: ModelConfig) -> TrainingData:
        """Check the sets and find their heads.

        Raises:
            ConfigError: a head is not in the model, or a weight is not positive.
            DataError: a set is empty, has no labels, or has elements outside the type map.
        """
        if not sets:
            raise ConfigError("there is no training set; name at least one")
        whole = whole_sets(sets)
        check_set_names(whole)
        names = [h.name for h in config.heads]
        heads = {}
        for name, item in whole.items():
            head = item.head or name
            if head not in names:
                raise ConfigError(
                    f"set {name!r}: no head {head!r} in the model; its heads are {', '.join(names)}"
                )
            heads[name] = names.index(head)
            weight = typed(float, item.weight, f"set {name!r}: weight")
            if not weight > 0:
                raise ConfigError(f"set {name!r}: weight = {weight} is not allowed; allowed: above 0")
            _check_set(name, item, config)
        return cls(whole, heads)

    def frames(self, head: int) -> Iterator[Frame]:
        """The training frames of all sets of a head."""
        return (f for name, item in self.sets.items() if self.heads[name] == head for f in item.train)


def _check_set(name: str, item: TrainingSet, config: ModelConfig) -> None:
    if len(item.train) == 0:
        raise DataError(f"set {name!r} has no training frames")
    head = next(head for head in config.heads if head.name == (item.head or name))
    titles = {f"validation {own}".strip(): part for own, part in item.validation_sets().items()}
    for title, part in (("", item.train), *titles.items()):
        title = f"set {name!r}, {title}".removesuffix(", ")
        check_type_map(part, config)
        check_frames(title, part)
        for frame in part:
            require_parameters(frame, head.fitting)
        check_labels(title, part, head.label)


def check_labels(name: str, data: Dataset, label: str | None = "") -> None:
    """Raise a DataError unless some frame has a label, that of the head where it has one of its own.

    Args:
        label: "" for a head of energies, None for any head.
    """
    if label is None and any(frame.properties for frame in data):
        return
    if label:
        if not any(label in frame.properties for frame in data):
            raise DataError(
                f"{name}: no frame has {label}, which its head learns; set atoms.arrays[{label!r}], "
                "one number an atom"
            )
    elif not any(len(frame.lacking) < 3 for frame in data):
        raise DataError(
            f"{name}: no frame has an energy, forces or a stress; "
            f"{advice(chain(*data.unread_labels.values()))}"
        )


def warn_of_misfits(data: TrainingData) -> None:
    """Log a warning for every set with stresses that contradict its energies."""
    for name, item in data.sets.items():
        found = stress_misfits(item.train)
        if found:
            more = f" (and {len(found) - 1} more groups of frames)" if len(found) > 1 else ""
            logger.warning(
                "%s: %s%s. drop = ['stress misfit'] in [sets.NAME], or clean(data, drop=('stress misfit',)), "
                "leaves these stresses out", name, found[0], more
            )  # fmt: skip


def warn_of_repeats(data: TrainingData) -> None:
    """Log a warning for every validation set with frames that its head is trained on."""
    held_out = [(n, own, part) for n, s in data.sets.items() for own, part in s.validation_sets().items()]
    known = {head: set(map(content, data.frames(head))) for head in {data.heads[n] for n, *_ in held_out}}
    for name, own, part in held_out:
        if found := [i for i, frame in enumerate(part) if content(frame) in known[data.heads[name]]]:
            logger.warning(
                "%s: %d of %d validation frames are training frames too, such as %s; they say nothing of "
                "other frames", f"{name}, {own}" if own else name, len(found), len(part),
                part[found[0]].source or f"frame {found[0]}",
            )  # fmt: skip


def check_type_map(dataset: Dataset, config: ModelConfig) -> None:
    """Raise a DataError when the set has elements outside the type map."""
    missing = [e for e in dataset.elements if e not in config.type_map]
    if missing:
        raise DataError(
            f"{dataset.name} contains {', '.join(missing)}, which the model has no type for "
            f"(type map: {', '.join(config.type_map)}); train a model whose type map includes them, "
            "or leave out these frames"
        )


def lacking_parameters(frame: Frame, fitting: FittingConfig) -> str:
    """What a head needs and a frame does not have, in words, or ""."""
    needs = (
        ("fparam", frame.fparam, fitting.numb_fparam, "numbers per frame"),
        ("aparam", frame.aparam, fitting.numb_aparam, "numbers per atom"),
    )
    for name, values, number, unit in needs:
        if not number or (values is None and name == "fparam" and fitting.default_fparam is not None):
            continue
        if values is None or values.shape[-1] != number:
            seen = "none" if values is None else f"{values.shape[-1]}"
            return f"{number} {unit} ({name}), found {seen}"
    return ""


def require_parameters(frame: Frame, fitting: FittingConfig) -> None:
    """Raise a DataError for a frame without the parameters that a head needs."""
    lacking = lacking_parameters(frame, fitting)
    if lacking:
        raise DataError(
            f"{frame.source or 'a frame'}: the head needs {lacking}; they are fparam.npy and aparam.npy in a "
            "deepmd-kit folder, atoms.info['fparam'] and atoms.arrays['aparam'] elsewhere"
        )


def warn_of_unused_parameters(data: TrainingData, config: ModelConfig) -> None:
    """Log a warning for every set with frame or atomic parameters that its head does not take."""
    for name, item in data.sets.items():
        head = config.heads[data.heads[name]]
        for kind, taken in (("fparam", head.fitting.numb_fparam), ("aparam", head.fitting.numb_aparam)):
            if not taken and any(getattr(frame, kind) is not None for frame in item.train):
                logger.warning(
                    "%s: its frames have %s, which head %r does not take (numb_%s = 0); it is left out",
                    name, kind, head.name, kind,
                )  # fmt: skip


def model_for(
    name: str, sets: Mapping[str, TrainingSet | Dataset], *, type_map: tuple[str, ...] | None = None
) -> ModelConfig:
    """A preset with one head for each of the sets' heads, and the elements that occur as type map."""
    elements: dict[str, set[str]] = {}
    for set_name, item in whole_sets(sets).items():
        elements.setdefault(item.head or set_name, set()).update(item.train.elements)
    heads = tuple(HeadConfig(name=head, elements=by_number(seen)) for head, seen in elements.items())
    return preset(name, type_map or by_number(set().union(*elements.values()))).with_heads(heads)


def by_number(symbols: Iterable[str]) -> tuple[str, ...]:
    """Chemical symbols, by atomic number."""
    return tuple(sorted(symbols, key=atomic_numbers.__getitem__))


def with_seen_elements(config: ModelConfig, data: TrainingData) -> ModelConfig:
    """The configuration with each head's `elements` extended by those of its training sets."""
    heads = []
    for position, head in enumerate(config.heads):
        own = (item for name, item in data.sets.items() if data.heads[name] == position)
        seen = {*head.elements, *(e for item in own for e in item.train.elements)}
        heads.append(dataclasses.replace(head, elements=by_number(seen)))
    return config.with_heads(tuple(heads))
