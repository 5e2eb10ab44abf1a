"""Names that users choose as parts of file names: kept apart, or refused before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dpa2calc.errors import ConfigError

LONGEST = 200  # bytes; file systems allow 255, and words are put around the name


def file_names(names: Iterable[str], what: str) -> dict[str, str]:
    """What stands for each name in file names: separators become `_`.

    Args:
        what: the kind of the names in messages, such as "sets".

    Raises:
        ConfigError: two names would share their files, or one cannot be part of a file name.
    """
    taken: dict[str, str] = {}
    for name in names:
        safe = name.replace("/", "_").replace(os.sep, "_")
        if not name.strip() or not name.isprintable() or len(os.fsencode(safe)) > LONGEST:
            shown = repr(name) if len(name) <= 60 else f"{name[:60]!r}..."
            raise ConfigError(
                f"{what}: the name {shown} cannot be part of a file name; allowed: printable characters, at "
                f"most {LONGEST} bytes"
            )
        if safe in taken:
            raise ConfigError(
                f"{what}: {taken[safe]!r} and {name!r} would write the same files ({safe}); rename one of "
                "them"
            )
        taken[safe] = name
    return {name: safe for safe, name in taken.items()}
