"""What a finished run leaves beside its weights: errors on the test sets, figures, one summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from dpa2calc.files.atomic import write_json, write_text
from dpa2calc.files.figures import save_figure
from dpa2calc.files.names import file_stems
from dpa2calc.files.typed import to_dict
from dpa2calc.labels.errors import percent, weighted_average
from dpa2calc.model.config import HeadConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint, save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.checks.near_copies import content
from dpa2calc.training.data.dataset import Dataset, Frame
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.evaluate import Evaluation, evaluate
from dpa2calc.training.uncertainty import take_uncertainty

from .baselines import Baselines
from .result import TrainResult

MOST_GROUPS = 8  # of a test set, whose errors are kept one by one


@dataclasses.dataclass(frozen=True)
class RunReport:
    """The model that the run ends with, and its errors on the test sets.

    `file` is `model.safetensors`: the best weights by validation where there was one (unless the option
    `keep` asks for the last), else the last.
    """

    file: Path
    potential: Potential
    evaluations: dict[str, Evaluation]
    text: str
    failed: tuple[str, ...] = ()  # test sets on which the model is worse than none


def finish_run(
    result: TrainResult,
    sets: Mapping[str, TrainingSet],
    test: Mapping[str, Dataset],
    *,
    config: TrainConfig,
    progress: bool = True,
) -> RunReport:
    """Evaluate the final weights on the test sets and write model, figures and summary to the run's folder.

    Files: `model.safetensors` (test errors and training figures in the heads' info), `summary.json`,
    `summary.txt`, `learning_curve.png`, and `parity_NAME.png` and `evaluation_NAME.npz` for each test set.
    """
    folder, device = result.output, config.used_device
    names = file_stems(test)
    best = folder / "best.safetensors"
    potential = load_checkpoint(best) if config.keep == "best" and best.exists() else result.potential
    take_uncertainty(potential, folder / "model.safetensors")
    potential = potential.to(device)
    evaluations = {
        name: evaluate(potential, data, head=sets[name].head or name, device=device, progress=progress)
        for name, data in test.items()
    }
    weights = {name: item.weight for name, item in sets.items()}
    baselines = {name: Baselines.of(sets[name].train, data) for name, data in test.items()}
    zero_shot = result.zero_shot()
    text = summary_text(evaluations, weights)
    for place, (name, trivial) in enumerate(baselines.items()):
        before = zero_shot if place == 0 and name == next(iter(sets)) else None
        text += f"{name}: {trivial.verdict(evaluations[name].errors, before)}\n"
        known = set(map(content, _learned(name, sets)))
        if repeated := sum(content(frame) in known for frame in test[name]):
            text += f"{name}: {repeated} of {len(test[name])} test frames are training frames too\n"
        if evaluations[name].errors.energy_rmse is not None and (why := _no_energies(name, sets, config)):
            text += f"{name}: energies were not learned ({why}): their errors say nothing of the model\n"
    failed = tuple(name for name, trivial in baselines.items() if trivial.failed(evaluations[name].errors))
    potential.config = potential.config.with_heads(
        tuple(with_figures(h, result.steps, sets, evaluations, config.seed) for h in potential.config.heads)
    )
    file = save_checkpoint(
        potential.to("cpu"), folder / "model.safetensors", extra_info={"steps": result.steps}
    )
    write_text(folder / "summary.txt", text)
    write_json(folder / "summary.json", _record(result, evaluations, weights))
    _figures(result, {names[name]: evaluation for name, evaluation in evaluations.items()}, folder)
    return RunReport(file, potential, evaluations, text, failed)


def _no_energies(name: str, sets: Mapping[str, TrainingSet], config: TrainConfig) -> str:
    """Why the head of a set learned no energies, "" where it did."""
    if "energy" not in config.learned:
        return "the prefactors of the energy are 0"
    known = any(frame.energy is not None for frame in _learned(name, sets))
    return "" if known else "no training frame has one"


def _learned(name: str, sets: Mapping[str, TrainingSet]) -> Iterator[Frame]:
    """The training frames of the head that a set trains."""
    head = sets[name].head or name
    return (f for other, item in sets.items() if (item.head or other) == head for f in item.train)


def with_figures(
    head: HeadConfig,
    steps: int,
    sets: Mapping[str, TrainingSet],
    evaluations: Mapping[str, Evaluation],
    seed: int,
) -> HeadConfig:
    """The head with what the run trained and found; one that it did not train keeps what is known of it."""
    own = [name for name, item in sets.items() if (item.head or name) == head.name]
    errors = {name: evaluations[name].errors.to_dict() for name in own if name in evaluations}
    if not own:
        return head
    info = dict(head.info)
    frames = {name: len(sets[name].train) for name in own}
    info["training"] = {"steps": steps, "frames": frames, "seed": seed}
    for figures in ("test_errors", "few_frames", "label_spread", "errors_by_group"):
        info.pop(figures, None)  # of an earlier run's weights
    if errors:
        info["test_errors"] = errors
        info["label_spread"] = {name: evaluations[name].spreads() for name in errors}
    by_group = {name: evaluations[name].by_group for name in errors}
    groups = {
        name: {group: e.to_dict() for group, e in found.items()}
        for name, found in by_group.items()
        if 1 < len(found) <= MOST_GROUPS
    }
    if groups:
        info["errors_by_group"] = groups
    few = {name: _few_frames(evaluations[name]) for name in errors if evaluations[name].few_frames}
    if few:
        info["few_frames"] = few
    return dataclasses.replace(head, info=info)


def _few_frames(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """How many frames make most of an error, and what it is without them: for cards, so without paths."""
    return {
        quantity: {"frames": len(few.sources), "share": few.share, "rmse_without": few.without}
        for quantity, few in evaluation.few_frames.items()
    }


def summary_text(evaluations: Mapping[str, Evaluation], weights: Mapping[str, float]) -> str:
    """A table of test errors by set, and the weighted averages of the paper's tables."""
    if not evaluations:
        return "no test set was named\n"
    width = max(24, *(len(name) for name in evaluations))
    titles = ("frames", "E RMSE", "E MAE", "F RMSE", "F MAE", "E share", "F share")
    lines = [f"{'test set':<{width}} {titles[0]:>7} " + " ".join(f"{title:>9}" for title in titles[1:])]
    errors = {name: evaluation.errors for name, evaluation in evaluations.items()}
    quantities = ("energy_rmse", "energy_mae", "force_rmse", "force_mae")
    means = [weighted_average(errors, weights, quantity) for quantity in quantities]
    rows = [(name, str(e.n_frames), [getattr(e, q) for q in quantities]) for name, e in errors.items()]
    for name, number, values in (*rows, ("weighted average", "", means)):
        cells = " ".join(f"{v:9.2f}" if v is not None else f"{'-':>9}" for v in values)
        shares = evaluations[name].shares() if name in evaluations else {}
        cells += "".join(f" {percent(shares.get(quantity)):>9}" for quantity in ("energy", "force") if shares)
        lines.append(f"{name:<{width}} {number:>7} {cells}")
    lines.append("energies in meV/atom, forces in meV/Å; shares of the labels' spread (standard deviation)")
    for name, evaluation in evaluations.items():
        lines += [f"{name}: {text}" for text in evaluation.remarks()]
    return "\n".join(lines) + "\n"


def _record(
    result: TrainResult, evaluations: Mapping[str, Evaluation], weights: Mapping[str, float]
) -> dict[str, object]:
    errors = {name: evaluation.errors for name, evaluation in evaluations.items()}
    averaged = ("energy_rmse", "force_rmse", "virial_rmse")
    return {
        "steps": result.steps,
        "best_score": result.best_score,
        "test": to_dict(errors),
        "weighted_average": {q: weighted_average(errors, weights, q) for q in averaged},
    }


def _figures(result: TrainResult, evaluations: Mapping[str, Evaluation], folder: Path) -> None:
    """The learning curve, and a parity plot and an archive for each evaluation, by its file name."""
    width = 14 if 10 < len(result.history.sets()) <= 30 else 10  # a long legend stands beside the panels
    save_figure(folder / "learning_curve.png", result.history.plot, panels=2, size=(width, 4))
    for name, evaluation in evaluations.items():
        evaluation.save(folder / f"evaluation_{name}.npz")
        if evaluation.panels():
            save_figure(folder / f"parity_{name}.png", evaluation.plot, panels=len(evaluation.panels()))
