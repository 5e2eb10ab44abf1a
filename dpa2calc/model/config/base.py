"""What every descriptor's options say, and the checks that all configurations share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, get_args

from dpa2calc.files.limits import MOST_CUTOFF, MOST_LAYERS, MOST_WIDTH
from dpa2calc.files.typed import wrong

Activation = Literal[
    "tanh", "relu", "relu6", "softplus", "sigmoid", "silu", "gelu", "gelu_tf", "linear", "none", "silut"
]
TebdMode = Literal["concat", "strip"]
UpdateStyle = Literal["res_avg", "res_incr", "res_residual"]
Pairs = tuple[tuple[int, int], ...]


def check(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise a ConfigError that names the option, the value seen and what is allowed."""
    if not condition:
        raise wrong(key, value, allowed)


def check_activation(key: str, value: str) -> None:
    """Accept the names of `Activation` and `silut:<threshold>`."""
    name, _, threshold = value.partition(":")
    known = name in get_args(Activation) and (not threshold or (name == "silut" and _is_number(threshold)))
    check(known, key, value, ", ".join(get_args(Activation)))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def check_cutoff(name: str, cutoff: float, smooth: float, nsel: int) -> None:
    check(0 < cutoff <= MOST_CUTOFF, f"{name}.cutoff", cutoff, f"a length above 0, up to {MOST_CUTOFF:g} Å")
    check(0 <= smooth < cutoff, f"{name}.cutoff_smooth", smooth, f"from 0 to below the cutoff ({cutoff} Å)")
    check(0 < nsel <= MOST_WIDTH, f"{name}.nsel", nsel, f"1 to {MOST_WIDTH} neighbours")


def check_widths(name: str, neuron: tuple[int, ...]) -> None:
    """Refuse no layers at all, or more and wider ones than any network has."""
    check(
        0 < len(neuron) <= MOST_LAYERS and 0 < min(neuron) and max(neuron) <= MOST_WIDTH,
        name,
        neuron,
        f"1 to {MOST_LAYERS} widths from 1 to {MOST_WIDTH}",
    )


def check_width(name: str, value: int) -> None:
    check(0 < value <= MOST_WIDTH, name, value, f"from 1 to {MOST_WIDTH}")


def check_neuron(name: str, neuron: tuple[int, ...], axis: int) -> None:
    check_widths(f"{name}.neuron", neuron)
    check(0 < axis <= neuron[-1], f"{name}.axis_neuron", axis, f"from 1 to the last width ({neuron[-1]})")


def check_pairs(name: str, pairs: Pairs, n_types: int) -> None:
    """Refuse pairs of types that are not in the type map."""
    inside = all(0 <= kind < n_types for pair in pairs for kind in pair)
    check(inside, name, pairs, f"pairs of types from 0 to {n_types - 1}")


class Block(NamedTuple):
    """A part of a descriptor with neighbours of its own: within `cutoff` (Å), under "nearest" up to `nsel`.

    `facts` are more numbers that a description of the model shows.
    """

    name: str
    cutoff: float
    nsel: int
    facts: dict[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class DescriptorConfig:
    """What every descriptor's options say, before there are weights; `kind` tells them apart in files.

    A subclass has the fields `kind` (a Literal with its default), `cutoff`, `nsel`, and its own. `kinds`
    holds all that can be read; `dpa2calc.model.descriptors.register` adds one.
    """

    kinds: ClassVar[dict[str, type[DescriptorConfig]]] = {}
    title: ClassVar[str] = ""  # in descriptions; the kind where there is none
    mixed_types: ClassVar[bool] = True  # whether one net, also in the heads, serves all elements

    kind: str

    if TYPE_CHECKING:  # fields or properties of the subclasses

        @property
        def cutoff(self) -> float:
            """The largest cutoff, Å."""

        @property
        def nsel(self) -> int:
            """The largest neighbour number under the rule "nearest"."""

    @property
    def type_sel(self) -> tuple[int, ...]:
        """How many neighbours of each type the rule "nearest" keeps, where it counts them apart; else ()."""
        return ()

    def blocks(self) -> tuple[Block, ...]:
        """The parts that look at neighbours."""
        return (Block("descriptor", self.cutoff, self.nsel),)

    def n_arrays(self, n_types: int) -> int:
        """A lower bound of the number of arrays of weights; checked before a file's model is built."""
        return 0

    def check_in_model(self, n_types: int, neighbor_rule: str) -> None:
        """Raise a ConfigError where the options do not fit the model's types or its neighbour rule."""
