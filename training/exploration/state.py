"""The record of work in rounds on disk: what it is made of, its phase, and its finished rounds."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from ase import Atoms

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.atomic import write_json
from dpa2calc.files.identity import Part, differences, structures_identity
from dpa2calc.files.results import from_plain, versions
from dpa2calc.model.config import to_dict
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers.frame_file import read_json
from dpa2calc.training.runs.identity import data_identity

from .options import LoopOptions, MDCondition
from .rounds import Round
from .structures import structures_digest

logger = logging.getLogger(__name__)
JSON = dict[str, Any]  # a table of a JSON file
STATE_VERSION = 2  # 1 has cards of teacher and student, but no hashes of their weights


Record = TypeVar("Record", bound=Round)


class RoundsState(Generic[Record]):
    """`state.json` of one folder: written whole after each phase.

    Another origin (`content`, hashes; `identity`, words for people) is refused; other options are allowed,
    and said, so that a run can resume with more rounds or a tighter threshold.

    Args:
        what: a folder of another kind of work would be. record: the class of a round.
        origin: by name, words and hashes of what the folder belongs to, the source of the labels first.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        record: type[Record],
        origin: Mapping[str, tuple[JSON, Part]],
        *,
        start: Sequence[Atoms],
        config: LoopOptions,
        conditions: Sequence[MDCondition],
        train: TrainConfig,
        **sets: Dataset | None,
    ):
        self.path, self.what, self.record = folder / "state.json", what, record
        self.rounds: list[Record] = []
        self.source = next(iter(origin))
        words = {name: told for name, (told, _) in origin.items()}
        self.identity: JSON = plain({**words, "start frames": structures_digest(start)})
        hashes = {name: part for name, (_, part) in origin.items()}
        self.content: dict[str, Part] = {**hashes, "start frames": structures_identity(start)}
        self.earlier: dict[str, Part] = {}  # hashes that earlier versions took for the same
        self.train = type(train)
        self.options: JSON = {
            "loop": to_dict(config),
            "md": [c.stored() for c in conditions],
            "train": to_dict(train),
            **{
                f"{name} frames": None if data is None else data_identity(data) for name, data in sets.items()
            },
        }

    def provenance(self) -> JSON:
        """What the checkpoints of its models say of their origin."""
        return plain(
            {
                self.source: self.identity[self.source],
                "start_frames": self.identity["start frames"],
                "options": {name: self.options[name] for name in ("loop", "md", "train")},
                "rounds": len(self.rounds),
                "versions": versions("torch"),
            }
        )

    def load(self) -> None:
        """Take the finished rounds of an earlier call, if there was one.

        Raises:
            ConfigError: it was of another teacher, student or other start frames. DataError: it is damaged.
        """
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
            other, changes = self._other(stored), self._changes(stored["options"])
            rounds = [from_plain(self.record, r) for r in stored["rounds"]]
            if [r.number for r in rounds] != list(range(1, len(rounds) + 1)):
                raise ValueError("its rounds do not follow each other")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path} is damaged ({error!r}); put back a copy of it, or choose another output"
            ) from error
        if other:
            raise ConfigError(f"{self.path.parent} holds {self.what} with another {other}")
        if version == 1:
            logger.warning(
                "%s was written by an earlier version, which kept no hash of weights: whether those of the "
                "teacher are the same cannot be checked",
                self.path,
            )
        for change in changes:
            logger.warning("resuming with other options than before %s", change)
        self.rounds = rounds
        logger.info("resuming after round %d of %s", len(rounds), self.path.parent)

    def _other(self, stored: JSON) -> str:
        """Which of teacher, student and start frames is another one, and how; "" where none is."""
        for name, card in plain(self.identity).items():
            old = plain(stored["identity"])[name]
            found = ["its card"] if old != card else []
            if stored["version"] > 1:
                parts = [self.content[name], *([self.earlier[name]] if name in self.earlier else [])]
                before = {name: _nameless(stored["content"][name])}
                several = [differences(before, {name: _nameless(part)}) for part in parts]
                found = several[0] if all(several) else []
            if found:
                details = _difference(old, card) or ": " + "; ".join(found[:6])
                return f"{name.removesuffix('s')}; choose another output{details}"
        return ""

    def _changes(self, stored: JSON) -> list[str]:
        """Options that are not those of the earlier call."""
        found = []
        stored = plain(stored)
        for name, values in plain(self.options).items():
            old = stored[name] if name in stored else values
            if name == "train":  # options that are younger than the state had their defaults then
                old = {**plain(to_dict(self.train())), **old, "device": values["device"]}
            if old != values:
                found.append(f"({name}){_difference(old, values)}")
        return found

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
                "rounds": to_dict(self.rounds),
            },
        )


def _nameless(part: Part) -> Part:
    """Without the name of an only head, which may change: "fitting.NAME.neuron" as "fitting.neuron"."""
    names = {key.removeprefix("fitting.").rpartition(".")[0] for key in part if key.startswith("fitting.")}
    if len(names) != 1:
        return part
    before = f"fitting.{names.pop()}."
    return {f"fitting.{k.removeprefix(before)}" if k.startswith(before) else k: v for k, v in part.items()}


def plain(values: JSON) -> JSON:
    """As JSON gives it back: tuples as lists, and nothing that JSON does not know.

    Infinity, which turns a limit off, is no number of JSON: it becomes the text "Infinity".
    """
    return dict(json.loads(json.dumps(values, default=str), parse_constant=str))


def _difference(old: object, new: object) -> str:
    """The entries that differ, for a message."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return ""
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    return ": " + ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in keys[:4]) if keys else ""
