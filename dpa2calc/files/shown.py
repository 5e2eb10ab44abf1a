"""How objects with a summary show themselves in a shell or a notebook."""

from __future__ import annotations

from typing import Any


class ShownBySummary:
    """Shown as its class and its `summary()`; a dataclass would list every array it holds.

    Example:
        >>> class Mean(ShownBySummary):
        ...     def summary(self):
        ...         return "1.5 ± 0.1 eV"
        >>> Mean()
        <Mean: 1.5 ± 0.1 eV>
    """

    def summary(self) -> str:
        """A line or one screen of text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        text = self.summary()
        return f"<{type(self).__name__}{':' + chr(10) if chr(10) in text else ': '}{text}>"

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # `dataclass` writes a __repr__ into every class that has none of its own.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]
