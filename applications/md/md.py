"""Molecular dynamics on any ASE calculator: guarded, logged, and restartable to the last bit."""

from __future__ import annotations

from ase import Atoms

from dpa2calc.applications.shared.application import application_writing
from dpa2calc.dynamics.config import MDConfig
from dpa2calc.dynamics.files import PathLike
from dpa2calc.dynamics.result import MDResult
from dpa2calc.dynamics.simulation import Simulation
from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import build


@application_writing("trajectory", "log", "restart")
def run_md(
    atoms: Atoms,
    config: MDConfig | None = None,
    *,
    trajectory: PathLike | None = None,
    log: PathLike | None = None,
    restart: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **options: object,
) -> MDResult:
    """Run molecular dynamics to a total number of steps.

    When the file `restart` exists, the run resumes from it (also after a kill) and repeats, bit for
    bit, what an uninterrupted run would have done; trajectory and log are cut back to its step and
    continued. Structure, calculator and options must be those of the first call, but for `steps` and
    `restart_seconds`. Otherwise a new run starts, and writes the restart file first.

    Args:
        atoms: with a calculator; never changed.
        config: the run; instead, its fields can be given as keywords, or some of them replaced.
        trajectory: `.traj` (exact) or `.extxyz`; energy, forces and stress go with each frame.
        log: CSV file, columns as in `dynamics.files.COLUMNS`.
        restart: `.npz` file to resume from and to keep up to date.
        overwrite: start afresh over existing files.
        progress: show steps, rate in ns/day and time left on stderr.
        options: fields of MDConfig.

    Returns:
        MDResult; `status` is "stopped" (with a warning) when a guard ended the run. The last good
        and the offending frame are then kept beside the trajectory as `*-last-good.extxyz` and
        `*-stopped.extxyz`.

    Raises:
        ConfigError, StructureError: wrong options or atoms.
        ConfigError: the restart file belongs to another structure, calculator or other options, or another
            run is writing to one of the files.
        DataError: a file to continue from is damaged, or trajectory and log are not those of the restart.
        OutputError: a file cannot be written.
        KeyboardInterrupt: passed on after the restart file was written.

    Example:
        >>> result = run_md(atoms, steps=2000, temperature=330, log="md.csv", trajectory="md.traj")
        >>> print(result.summary())
    """
    run = _merge(config, options)
    simulation = Simulation(atoms, run, trajectory=trajectory, log=log, restart=restart, overwrite=overwrite)
    try:
        simulation.run(progress)
        if simulation.status == "stopped":
            simulation.keep_stopped()
    finally:
        simulation.close()
    return simulation.result()


def _merge(config: MDConfig | None, options: dict[str, object]) -> MDConfig:
    known = {name: getattr(config, name) for name in MDConfig.__dataclass_fields__} if config else {}
    if "steps" not in known and "steps" not in options:
        raise ConfigError("give the total number of steps, for example run_md(atoms, steps=2000)")
    return build(MDConfig, {**known, **options}, read=lambda hint, value, name: value)
