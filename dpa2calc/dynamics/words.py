"""Words for what moves that were renamed: the earlier ones are taken for one release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

RENAMED = {"none": "fixed", "fixed": "positions", "isotropic": "volume", "full": "cell"}


def current_word(value: object, allowed: Sequence[str], name: str, *, stacklevel: int = 3) -> object:
    """Today's word for an earlier one; anything else as it is.

    Args:
        allowed: today's words of this option. An earlier word that is none of them is replaced.
        name: of the option, for the warning.

    Example:
        >>> current_word("full", ("positions", "cell"), "relax")
        'cell'
    """
    new = RENAMED.get(value) if isinstance(value, str) and value not in allowed else None
    if new not in allowed:
        return value
    warnings.warn(
        f"{name}={value!r} is now {name}={new!r}; the earlier word is taken until the next release",
        FutureWarning,
        stacklevel=stacklevel,
    )
    return new


def earlier_word(value: str) -> str:
    """The word that files of earlier versions hold for the freedom of a cell, so that their work resumes."""
    return {"positions": "fixed", "volume": "isotropic", "cell": "full"}.get(value, value)
