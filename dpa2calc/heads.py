"""From the name a user types to one head of a model, never by guessing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from dpa2calc.errors import ElementError, HeadError


class HeadLike(Protocol):
    """What is needed to name a head; `dpa2calc.model.config.HeadConfig` is one."""

    @property
    def name(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def description(self) -> str: ...
    @property
    def functional(self) -> str: ...
    @property
    def elements(self) -> tuple[str, ...]: ...


Head = TypeVar("Head", bound=HeadLike)

# More elements than this are abbreviated in lists.
_MANY_ELEMENTS = 24


def resolve_head(
    name: str | None, heads: Sequence[Head], *, model: str = "this model", elements: Iterable[str] = ()
) -> Head:
    """The one head that `name` means.

    Tried in this order, each step only if the one before found nothing:
    the exact name; an exact alias; name or alias with case, '-', '_' and ' ' ignored;
    the end of a name or alias after a separator ("H2O-PD" -> "H2O_H2O_PD").

    Args:
        name: what the user wrote. None is allowed if there is only one head.
        heads: all heads of the model.
        model: how messages call the model.
        elements: chemical symbols that the head will be used for, as far as known.

    Raises:
        HeadError: nothing fits, more than one head fits, or None with several heads; the
            message lists every head that knows the elements, with description, functional and elements.
    """
    shown = heads
    if name is None:
        if len(heads) == 1:
            return heads[0]
        message = (
            f"{model} has {len(heads)} heads, one for each level of theory and kind of system; "
            "choose one with head=..."
        )
    elif not isinstance(name, str):
        message = f"head = {name!r} is not a name; give one of these as a string"
    elif matches := next(filter(None, _candidates(name, heads)), None):
        if len(matches) == 1:
            return matches[0]
        shown = matches
        message = f"head {name!r} fits {len(matches)} heads of {model}; write one of these in full"
    else:
        message = f"{model} has no head {name!r}{_suggestion(name, heads)}"
    raise HeadError(message, shown, elements)


def _candidates(name: str, heads: Sequence[Head]) -> Iterable[list[Head]]:
    """Heads that match by each rule, the strictest rule first."""
    key = _normalise(name)
    yield [head for head in heads if head.name == name]
    yield [head for head in heads if name in head.aliases]
    yield [head for head in heads if key in map(_normalise, _names(head))]
    if key:
        yield [head for head in heads if any(_normalise(n).endswith(f"_{key}") for n in _names(head))]


def _names(head: HeadLike) -> tuple[str, ...]:
    return (head.name, *head.aliases)


def _normalise(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _suggestion(name: str, heads: Sequence[HeadLike]) -> str:
    # A name is also compared without its leading words, as the suffix rule would accept it.
    spellings: dict[str, str] = {}
    for head in heads:
        for full in _names(head):
            words = _normalise(full).split("_")
            for start in range(len(words)):
                spellings.setdefault("_".join(words[start:]), head.name)
    close = difflib.get_close_matches(_normalise(name), spellings, n=3, cutoff=0.7)
    return did_you_mean(spellings[spelling] for spelling in close)


def heads_that_know(elements: Iterable[str], heads: Sequence[Head]) -> list[Head]:
    """The heads that saw all these elements; a head that does not say what it saw is taken to know them."""
    wanted = set(elements)
    return [head for head in heads if not head.elements or wanted <= set(head.elements)]


def check_known(elements: Iterable[str], head: HeadLike, heads: Sequence[HeadLike] = ()) -> None:
    """Refuse elements that a head never saw in training (a head that does not say is trusted).

    Args:
        heads: all heads of the model; those that know the elements are named.

    Raises:
        ElementError: names the elements, the head, and the elements it knows.
    """
    unseen = sorted(set(elements) - set(head.elements)) if head.elements else []
    if unseen:
        better = ", ".join(other.name for other in heads_that_know(elements, heads))
        advice = "Choose another head"
        if better:
            advice = f"Heads that know {' '.join(sorted(set(elements)))}: {better}. Choose one"
        raise ElementError(
            f"head {head.name!r} never saw {', '.join(unseen)} in training, so its energies would be "
            f"guesses; it saw {', '.join(head.elements)}. {advice}, or pass "
            "allow_unseen_elements=True to evaluate all the same"
        )


def list_heads(heads: Sequence[HeadLike]) -> str:
    """One line per head: name, aliases, functional, elements, description.

    Example:
        >>> print(list_heads(model.config.heads))
          H2O_H2O_PD (H2O-PD)  SCAN  [H O]  water and ice
    """
    width = max((len(_label(head)) for head in heads), default=0)
    lines = []
    for head in heads:
        parts = [
            _label(head).ljust(width),
            head.functional or "functional not stated",
            f"[{_elements(head.elements)}]",
        ]
        if head.description:
            parts.append(said_once(head.description))
        lines.append("  " + "  ".join(parts))
    return "\n".join(lines)


def said_once(description: str) -> str:
    """A description without repeats, which heads of several sets of one kind have in older checkpoints."""
    return "; ".join(dict.fromkeys(description.split("; ")))


def _label(head: HeadLike) -> str:
    return f"{head.name} ({', '.join(head.aliases)})" if head.aliases else head.name


def _elements(symbols: Sequence[str]) -> str:
    if not symbols:
        return "elements not stated"
    if len(symbols) <= _MANY_ELEMENTS:
        return " ".join(symbols)
    return f"{len(symbols)} elements: {' '.join(symbols[:6])} ... {' '.join(symbols[-3:])}"


def did_you_mean(names: Iterable[str]) -> str:
    """The end of a message about an unknown name: those that are spelt alike, each once, or nothing."""
    found = dict.fromkeys(names)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""
