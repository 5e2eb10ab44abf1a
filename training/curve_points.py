"""The points of a learning curve on disk: each with what it belongs to."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpa2calc.errors import DataError
from dpa2calc.files.atomic import write_text
from dpa2calc.files.identity import Identity, require_same
from dpa2calc.labels.errors import Errors
from dpa2calc.training.runs.log import json_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Test errors of one scheme trained on `n_frames` frames."""

    scheme: str
    n_frames: int
    errors: Errors


class Points:
    """The file `points.jsonl`; `identities` of earlier versions' points are None."""

    def __init__(self, path: Path):
        self.path = path
        self.points: list[Point] = []
        self.identities: list[Identity | None] = []
        for number, _, record in json_lines(path) if path.exists() else ():
            self._take(record, number)

    def _take(self, record: Any, number: int) -> None:
        try:
            point = Point(str(record["scheme"]), int(record["n_frames"]), Errors(**record["errors"]))
            identity = record.get("identity")
            if not (identity is None or isinstance(identity, dict)):
                raise TypeError("identity")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path}, line {number} is no point of a learning curve; remove this line, or choose "
                "another output"
            ) from error
        self.points.append(point)
        self.identities.append(identity)

    def has(self, scheme: str, n_frames: int) -> bool:
        """Whether the point is there."""
        return any((p.scheme, p.n_frames) == (scheme, n_frames) for p in self.points)

    def check(self, wanted: Mapping[tuple[str, int], Identity]) -> None:
        """Refuse points of other data, options or models.

        Raises:
            ConfigError: names the point, what differs, and the ways out.
        """
        unknown = 0
        for place, (point, stored) in enumerate(zip(self.points, self.identities)):
            asked = wanted.get((point.scheme, point.n_frames))
            if asked is None:
                continue
            if stored is None:
                unknown += 1
                self.identities[place] = asked
                continue
            require_same(
                stored,
                asked,
                where=f"the point {point.scheme!r} of {point.n_frames} frames in {self.path}",
                ways="Remove its line to make it again, or choose another output",
            )
        if unknown:
            logger.warning(
                "%d points of %s are of an earlier version, which kept no record of data and options: "
                "whether they are the same cannot be checked",
                unknown,
                self.path,
            )
            self._write()

    def add(self, point: Point, identity: Identity) -> None:
        """Keep one more point."""
        self.points.append(point)
        self.identities.append(identity)
        self._write()

    def _write(self) -> None:
        records = (
            {"scheme": p.scheme, "n_frames": p.n_frames, "errors": p.errors.to_dict(), "identity": identity}
            for p, identity in zip(self.points, self.identities)
        )
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in records))
