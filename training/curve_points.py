"""The points of a learning curve on disk: each with what it belongs to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpa2calc.files.identity import Identity, require_same
from dpa2calc.files.json_lines import read_json_lines, write_json_lines
from dpa2calc.labels.errors import Errors

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
        found = []
        if path.exists():
            found = read_json_lines(path, _taken, "point of a learning curve", "choose another output")
        self.points: list[Point] = [point for point, _ in found]
        self.identities: list[Identity | None] = [identity for _, identity in found]

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
        write_json_lines(self.path, records)


def _taken(record: Any) -> tuple[Point, Identity | None]:
    """What stands in a line; an error of Python's own where it is something else."""
    identity = record.get("identity")
    if not (identity is None or isinstance(identity, dict)):
        raise TypeError("identity")
    return Point(str(record["scheme"]), int(record["n_frames"]), Errors(**record["errors"])), identity
