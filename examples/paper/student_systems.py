"""The systems that `distill_students.py` makes students of, and how teachers and students are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training import DistillConfig, FinetuneConfig, MDCondition, TrainConfig
from dpa2calc.training.exploration.options import Ensemble

COLUMNS = ("teacher", "student", "full data")


@dataclass(frozen=True)
class System:
    """One column of the table: data, dynamics, and what the paper has (energy meV/atom, force meV/Å)."""

    folder: str
    functional: str
    md: tuple[MDCondition, ...]
    loop: DistillConfig
    virial: bool
    small: bool  # a student of a third of the size
    paper: dict[str, tuple[float, float]]  # by COLUMNS; nothing of systems that it does not have
    paper_share: float


def systems(quick: bool, md_steps: int, rounds: int) -> dict[str, System]:
    """All systems; temperatures go above those of the applications, so that their tails are covered."""
    loop = DistillConfig(
        max_rounds=1 if quick else rounds,
        frames_per_round=4 if quick else 60,
        perturbed=0 if quick else 3,
        explore_with="both",  # the student's own mistakes are corrected too
        contacts=0 if quick else 3,  # without them two oxygen atoms fused after 8 ps
        force_limit=100.0,
        displacement=0.04,
        strain=0.015,
        later_learning_rate=5e-3,
    )

    def system(
        folder: str, functional: str, temperature: tuple[float, ...], timestep: float, threshold: float,
        *, ensemble: Ensemble = "nvt", virial: bool = True, small: bool = False,
        paper: tuple[tuple[float, float], ...] = (), paper_share: float = 0.0,
    ) -> System:  # fmt: skip
        md = MDCondition(
            ensemble=ensemble,
            temperature=temperature[:1] if quick else temperature,
            timestep=timestep,
            steps=20 if quick else md_steps,
            sample_interval=5 if quick else 50,
            trajectories=1,
        )
        own = dataclasses.replace(loop, threshold=threshold)
        return System(folder, functional, (md,), own, virial, small, dict(zip(COLUMNS, paper)), paper_share)

    return {
        "water": system(
            "H2O-PBE0TS", "PBE0+TS", (330.0, 500.0, 700.0), 0.5, 0.15, virial=False,
            paper=((0.3, 30.0), (0.4, 41.7), (0.4, 37.7)), paper_share=0.25,
        ),
        "sse": system(
            "SSE-PBE", "PBE", (400.0, 800.0, 1200.0), 2.0, 0.3,
            paper=((1.3, 72.0), (3.3, 101.0), (1.9, 96.7)), paper_share=1.01,
        ),
        "ferroelectric": system(
            "FerroEle", "PBEsol", (200.0, 500.0, 900.0), 1.0, 0.25, ensemble="npt",
            paper=((1.6, 44.7), (2.5, 99.6), (1.9, 105.7)), paper_share=7.86,
        ),
        "mgcu": system("Alloy-MgCu", "PBE", (300.0, 800.0, 1500.0), 2.0, 0.15, small=True),
        "3bpa": system(
            "Mol-3BPA", "wB97X", (300.0, 600.0, 1000.0), 0.5, 0.2, virial=False, small=True
        ),
    }  # fmt: skip


def student_model(system: System, elements: tuple[str, ...]) -> ModelConfig:
    """A DPA-1 without attention."""
    model = preset("dpa1-l0", elements)
    if not system.small:
        return model
    descriptor = dataclasses.replace(model.descriptor, axis_neuron=8)  # type: ignore[call-arg]
    heads = tuple(
        dataclasses.replace(head, fitting=dataclasses.replace(head.fitting, neuron=(120, 120, 120)))
        for head in model.heads
    )
    return dataclasses.replace(model, descriptor=descriptor, heads=heads)


def student_training(steps: int, system: System, seed: int, device: str) -> TrainConfig:
    """Forces first, then energies; the weights are averaged.

    With Huber's loss the large forces of close contacts do not outweigh those of ordinary frames. It has no
    factor of the frame's size, so the energy's weights are larger than usual.
    """
    return TrainConfig(
        steps=steps,
        batch_atoms=200,
        learning_rate=2e-2,
        learning_rate_stop=5e-5,
        ema_decay=0.99,
        huber_delta=0.3,
        energy_prefactor_start=2.0,
        energy_prefactor_limit=200.0,
        force_prefactor_limit=20.0,
        log_every=max(1, min(100, steps // 5)),
        seed=seed,
        device=device,
        virial_prefactor_start=2.0 if system.virial else 0.0,
        virial_prefactor_limit=50.0 if system.virial else 0.0,
    )


def teacher_training(steps: int, system: System, seed: int, device: str) -> FinetuneConfig:
    """Gentle: the descriptor knows much of this already."""
    return FinetuneConfig(
        steps=steps,
        batch_atoms=200,
        learning_rate=3e-3,
        learning_rate_stop=5e-5,
        ema_decay=0.99,
        energy_prefactor_limit=20.0,
        force_prefactor_limit=20.0,
        log_every=max(1, min(100, steps // 5)),
        validate_every=max(1, steps // 10),
        seed=seed,
        device=device,
        virial_prefactor_start=0.02 if system.virial else 0.0,
        virial_prefactor_limit=0.5 if system.virial else 0.0,
    )
