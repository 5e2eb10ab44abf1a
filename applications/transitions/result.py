"""Lattice, order parameter and heat capacity against temperature, and where they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import units

from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, plus_minus

from .stage import Stage
from .step import StepPosition, find_step

_MARKS = {"heating": ("^", "C3"), "cooling": ("v", "C0")}


@dataclass(frozen=True, kw_only=True)
class PhaseTransition(Result):
    """One entry a stage, heating first (rising temperature), then cooling (falling).

    Means with their errors: temperatures in K, `enthalpy` in eV/atom, `volume` in Å³/atom, `lengths` and
    displacements in Å, `angles` in degrees, heat capacities in kB/atom; `pressure` in eV/Å³. `steps`: of each
    branch the transition temperature and its error in K.
    """

    formula: str
    n_atoms: int
    centre: str  # element(s) whose displacement is followed, "" for none
    pressure: float  # eV/Å³
    order_name: str  # what `order` is
    branch: tuple[str, ...]  # "heating" or "cooling"
    target: np.ndarray = field(repr=False)  # (n,) K
    temperature: np.ndarray = field(repr=False)  # (n, 2) K: mean, error; so for all that follow
    enthalpy: np.ndarray = field(repr=False)  # (n, 2) eV/atom, kinetic energy included
    volume: np.ndarray = field(repr=False)  # (n, 2) Å³/atom
    lengths: np.ndarray = field(repr=False)  # (n, 3, 2) Å per unit cell
    angles: np.ndarray = field(repr=False)  # (n, 3, 2) degrees
    tetragonality: np.ndarray = field(repr=False)  # (n, 2) unique axis over the mean of the others
    displacement: np.ndarray = field(repr=False)  # (n, 3, 2) Å mean vector off centre; NaN without centre
    polar: np.ndarray = field(repr=False)  # (n, 2) Å mean over time of |mean displacement|
    local: np.ndarray = field(repr=False)  # (n, 2) Å mean of |displacement| of single ions
    direction: tuple[str, ...] = field(repr=False)  # of the mean displacement, "none" when not significant
    order: np.ndarray = field(repr=False)  # (n, 2) order parameter
    heat_capacity: np.ndarray = field(repr=False)  # (n, 2) kB/atom, slope of the enthalpy
    heat_capacity_fluctuation: np.ndarray = field(repr=False)  # (n,) kB/atom, var(H) / (kT)²
    steps: dict[str, dict[str, Any]]  # per branch: temperature, error (K), reason (when there is none)

    @classmethod
    def from_stages(
        cls,
        stages: Sequence[Stage],
        *,
        n_atoms: int,
        formula: str,
        centre: str,
        pressure_gpa: float,
    ) -> PhaseTransition:
        """Collect stages and locate the step of the order parameter on each branch."""
        target = np.array([stage.target for stage in stages])
        branch = tuple(stage.branch for stage in stages)
        columns: dict[str, Any] = {
            name: np.array([getattr(stage, name) for stage in stages])
            for name in "temperature lengths angles tetragonality displacement polar local".split()
        }
        enthalpy = np.array([stage.enthalpy for stage in stages]) / n_atoms
        order = columns["polar"].copy()
        name = f"mean displacement of {centre} (Å)"
        if not centre:
            order, name = columns["tetragonality"].copy(), "tetragonal strain |c/a - 1|"
            order[:, 0] = np.abs(order[:, 0] - 1.0)  # c is the short axis in some crystals
        variance = np.array([stage.enthalpy_variance for stage in stages])
        located = {}
        for which in dict.fromkeys(branch):
            mine = np.array([b == which for b in branch])
            located[which] = vars(find_step(target[mine], order[mine, 0], order[mine, 1]))
        return cls(
            formula=formula,
            n_atoms=n_atoms,
            centre=centre,
            pressure=pressure_gpa * units.GPa,
            order_name=name,
            branch=branch,
            target=target,
            **columns,
            enthalpy=enthalpy,
            volume=np.array([stage.volume for stage in stages]) / n_atoms,
            direction=tuple(stage.direction for stage in stages),
            order=order,
            heat_capacity=_heat_capacity(branch, target, enthalpy),
            heat_capacity_fluctuation=variance / n_atoms / (units.kB * target) ** 2,
            steps=located,
        )

    def on(self, branch: str) -> np.ndarray:
        """Which stages belong to a branch, (n,) bool."""
        return np.array([name == branch for name in self.branch])

    def transition(self) -> StepPosition:
        """Transition temperature: mean over the branches, half the hysteresis in the error.

        Every branch that was run must show the step: one that does not come back on cooling is a structure
        that changed for good, or noise, and gives NaN with the reason. `steps` has the branches one by one.
        """
        lacking = {b: step["reason"] for b, step in self.steps.items() if step["reason"]}
        for branch, reason in lacking.items():
            other = f" on {branch}, but one on the other branch" if len(lacking) < len(self.steps) else ""
            return StepPosition(float("nan"), float("nan"), reason + other)
        values, errors = np.array([(step["temperature"], step["error"]) for step in self.steps.values()]).T
        error = np.sqrt((errors**2).mean() / len(values) + (np.ptp(values) / 2) ** 2)
        return StepPosition(float(values.mean()), float(error), "")

    def hysteresis(self) -> tuple[float, float]:
        """Transition temperature on heating less that on cooling, and its error, K; NaN without both."""
        up, down = self.steps.get("heating"), self.steps.get("cooling")
        if not up or not down:
            return float("nan"), float("nan")
        return up["temperature"] - down["temperature"], float(np.hypot(up["error"], down["error"]))

    def summary(self) -> str:
        """Transition temperature and a table of the stages."""
        lines = [
            f"temperature scan of {self.formula} ({self.n_atoms} atoms) at {self.pressure / units.GPa:g} GPa"
        ]
        named = {f"step on {branch:10s}": StepPosition(**step) for branch, step in self.steps.items()}
        for name, step in {**named, "transition": self.transition()}.items():
            value = f"{plus_minus(step.temperature, step.error)} K"
            lines.append(f"{name:18s} {f'not determined: {step.reason}' if step.reason else value}")
        if np.isfinite(self.hysteresis()[0]):
            lines.append(f"hysteresis         {plus_minus(*self.hysteresis())} K")
        lines.append(f"order parameter: {self.order_name}")
        lines.append(
            "   T (K)   a (Å)    b (Å)    c (Å)    c/a     V (Å³/atom)  order    Cp (kB/atom)  direction"
        )
        for k, target in enumerate(self.target):
            arrow = "up  " if self.branch[k] == "heating" else "down"
            lengths = "  ".join(f"{value:.4f}" for value in self.lengths[k, :, 0])
            lines.append(
                f"{arrow} {target:5g}  {lengths}   {self.tetragonality[k, 0]:.4f}  "
                f"{self.volume[k, 0]:9.4f}   {self.order[k, 0]:8.4f}  {self.heat_capacity[k, 0]:11.2f}   "
                f"{self.direction[k]}"
            )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Order parameter against temperature, with the step of each branch."""
        ax = self._draw(ax, self.order, self.order_name)
        for branch, step in self.steps.items():
            if not step["reason"]:
                low, high = step["temperature"] - step["error"], step["temperature"] + step["error"]
                ax.axvspan(low, high, color=_MARKS[branch][1], alpha=0.15, linewidth=0)
        return ax

    def plot_lattice(self, ax: Axes | None = None) -> Axes:
        """Lattice parameters against temperature; full symbols on heating, open ones on cooling."""
        ax = axes_for(ax)
        for branch in self.steps:
            mine, up = self.on(branch), branch == "heating"
            for axis, name in enumerate("abc"):
                ax.errorbar(
                    self.target[mine], *self.lengths[mine, axis].T, marker=_MARKS[branch][0],
                    color=f"C{axis}", fillstyle="full" if up else "none", linestyle="-" if up else ":",
                    label=name if up else None,
                )  # fmt: skip
        ax.set(xlabel="temperature (K)", ylabel="lattice parameter (Å)")
        ax.legend()
        return ax

    def plot_heat_capacity(self, ax: Axes | None = None) -> Axes:
        """Heat capacity at constant pressure against temperature."""
        ax = axes_for(ax)
        ax.axhline(3, color="k", linewidth=0.8, linestyle=":", label="3 kB")
        return self._draw(ax, self.heat_capacity, "heat capacity (kB/atom)")

    def _draw(self, ax: Axes | None, values: np.ndarray, name: str) -> Axes:
        """Values with errors (n, 2) against temperature, branch by branch."""
        ax = axes_for(ax)
        for branch in self.steps:
            mine = self.on(branch)
            mark, color = _MARKS[branch]
            ax.errorbar(self.target[mine], *values[mine].T, marker=mark, color=color, capsize=2, label=branch)
        ax.set(xlabel="temperature (K)", ylabel=name)
        ax.legend()
        return ax


def _heat_capacity(branch: tuple[str, ...], target: np.ndarray, enthalpy: np.ndarray) -> np.ndarray:
    """Slope of the enthalpy by central differences on each branch, in kB per atom, with its error."""
    result = np.full((len(target), 2), np.nan)
    for which in dict.fromkeys(branch):
        index = np.flatnonzero([name == which for name in branch])
        first, last = np.append(index[0], index[:-1]), np.append(index[1:], index[-1])  # neighbours
        width = (target[last] - target[first]) * units.kB
        result[index, 0] = (enthalpy[last, 0] - enthalpy[first, 0]) / width
        result[index, 1] = np.hypot(enthalpy[last, 1], enthalpy[first, 1]) / np.abs(width)
    return result
