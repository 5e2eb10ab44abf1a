"""Options that say what moves: `--relax` and its kin."""

from __future__ import annotations

from .application import Group


def add_words(
    group: Group, *flags: str, allowed: tuple[str, ...], help: str, default: str | None = None
) -> None:
    """Add an option that takes one of these words; those of earlier versions are taken with a warning."""

    def word(text: str) -> str:
        from dpa2calc.dynamics.words import current_word

        return str(current_word(text, allowed, flags[0]))

    group.add_argument(*flags, choices=allowed, type=word, default=default, help=help)


def add_relax_argument(group: Group, *allowed: str, default: str, help: str, fixed: str = "") -> None:
    """Add --relax.

    Args:
        allowed: words of `relaxation.cell_freedom`.
        fixed: a flag of earlier versions that stands for `--relax fixed`.
    """
    add_words(group, "--relax", allowed=allowed, default=default, help=help)
    if fixed:
        text = "the same as --relax fixed"
        group.add_argument(
            fixed, dest="relax", action="store_const", const="fixed", default=default, help=text
        )
