"""Names that users chose, as names of files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_LONGEST = 100  # bytes; file systems take 255, of which a prefix, an ending and a process number need some


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """A file name for each name, all different also where capitals do not count, none with a folder in it.

    Names that cannot be told apart as files, and those that are too long, get some letters of their checksum.

    Example:
        >>> file_stems(["water", "a/b", "a_b"])
        {'water': 'water', 'a/b': 'a_b', 'a_b': 'a_b-648fa9b3'}
    """
    stems: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)
        stem = plain.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
        if stem != plain or stem.casefold() in {taken.casefold() for taken in stems.values()}:
            stem += "-" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        stems[name] = stem
    return stems
