"""Options that say what moves: `--relax` and its kin."""

from __future__ import annotations

from typing import Any


def words(option: str, *allowed: str) -> dict[str, Any]:
    """For `add_argument`: one of these words; those of earlier versions are taken with a warning."""

    def word(text: str) -> str:
        from dpa2calc.dynamics.words import current_word

        return str(current_word(text, allowed, option))

    return {"choices": allowed, "type": word}


def add_relax_argument(group: Any, *allowed: str, default: str, help: str, fixed: str = "") -> None:
    """Add --relax.

    Args:
        allowed: words of `relaxation.cell_freedom`.
        fixed: a flag of earlier versions that stands for `--relax fixed`.
    """
    group.add_argument("--relax", **words("--relax", *allowed), default=default, help=help)
    if fixed:
        flag = {"dest": "relax", "action": "store_const", "const": "fixed", "default": default}
        group.add_argument(fixed, **flag, help="the same as --relax fixed")
