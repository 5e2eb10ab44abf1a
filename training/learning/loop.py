"""The loop of active learning in its folder; `active_learning` is its front door."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from ase import Atoms

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.identity import text_digest
from dpa2calc.files.typed import to_json
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.train import FinetuneConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.frame import frame_from_atoms
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.readers.frame_file import FrameFile, read_frames, write_frames
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.exploration.frames import LabelledFrames, is_sound
from dpa2calc.training.exploration.loop import TEST_FRAMES, Rounds
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.rounds import QUANTILES
from dpa2calc.training.exploration.sampling import Walk
from dpa2calc.training.exploration.structures import StartFrames, perturbed, structures_digest
from dpa2calc.training.finetune.finetune import check_elements, finetune
from dpa2calc.training.runs.identity import model_part, start_part

from .config import LearnConfig
from .labels import LabelSource, LabelStore, Waiting, earlier_identity, structure_key
from .result import LearnResult
from .selection import LearnRound, choose_frames, error_ratio, force_doubts, is_sure, stop_reason


class ActiveLearning(Rounds[FinetuneConfig, LearnConfig, LearnRound, LearnResult]):
    """Active learning in one folder.

    Files: `state.json` (options, phase, finished rounds), `labels/` (a file for each label), `labelled/`
    (start.extxyz, round-NN.extxyz: what is learned from), `explore/round-NN/` (a file a trajectory, with the
    model's energies and forces), `picked/round-NN.extxyz` (frames to label), `train/round-NN/`,
    `models/round-NN.safetensors`, `rounds.png`, and at the end `model.safetensors`, `result.json`.
    """

    what = "active learning"
    mark = "active_learning"
    models = "models"
    folders = ("labels", "picked")

    record = LearnRound

    def __init__(
        self,
        model: Potential,
        source: LabelSource,
        start_frames: StartFrames,
        conditions: tuple[MDCondition, ...],
        train: FinetuneConfig,
        config: LearnConfig,
        output: PathLike,
        known: Dataset | None,
        test: Dataset | None,
        progress: bool,
    ):
        super().__init__(start_frames, conditions, train, config, output, test, progress)
        self.model, self.source = model, source
        structures = Dataset(tuple(frame_from_atoms(a) for a in self.everything), "the start frames")
        for data in (structures, known, test):
            if data is not None:
                check_elements(model, data, allow_new=train.allow_new_elements)
        self.known = [] if known is None else [_with_labels(known, i) for i in range(len(known))]
        self.store = LabelStore(self.output / "labels", source, self.known)
        label, weights = source.identity(), start_part(model)
        own = {**model_part(model.config), **weights}
        self.state = self.state_of({"label": (label, label), "model": (weights, own)}, known=known, test=test)
        if (earlier := earlier_identity(source)) is not None:
            self.state.earlier["label"] = earlier
        self.labels = LabelledFrames(self.output / "labelled", config.name)

    # --- the loop -------------------------------------------------------------------------------

    def _run(self) -> LearnResult:
        """Where labels are awaited, the result says so."""
        try:
            return super()._run()
        except Waiting as waiting:
            self.say(f"stopped: {waiting}")
            result = self.result("waiting", str(waiting))
            result.save(self.output / "result.json")
            return result

    def label_start(self) -> None:
        """By the source of labels, within the budget; and once: what is given up is not asked for again."""
        structures = perturbed(self.start, self.config)
        file = FrameFile(self.labels.files(0)[0])
        mark = text_digest([structures_digest(structures), self.state.options["known frames"]])
        if file.finished and file.note.get("structures") == mark:
            return
        asked = len(self.store.lacking(structures))
        if self.store.spent + asked > self.config.budget:
            raise ConfigError(
                f"budget = {self.config.budget} is too small: {self.store.spent} labels are spent, and "
                f"{asked} start frames and their copies are to be labelled; give a larger budget or fewer "
                "start frames"
            )
        new = [atoms for atoms in structures if structure_key(atoms) not in self.store.known]
        found = self.store.label(new, progress=self.progress, group="start", learn_round=0)
        frames = [
            a for k, a in enumerate([*self.known, *found]) if is_sound(a, self.config, f"start frame {k + 1}")
        ]
        if not frames:
            raise DataError("no start frame is fit to learn from; the warnings above say why")
        file.restart()
        for atoms in frames:
            file.append(atoms)
        file.finish(structures=mark)

    def stop_reason(self) -> tuple[str, str]:
        """See `selection.stop_reason`."""
        return stop_reason(self.rounds, self.config)

    def train(
        self, folder: Path, before: Potential | None, data: Dataset, options: FinetuneConfig
    ) -> Potential:
        """Fine-tune the user's model, then the head that came of it."""
        model = self.model
        if before is not None:
            model, options = before, dataclasses.replace(options, start_head=self.config.name)
        name = self.config.name
        return finetune(model, data, options, output=folder, name=name, progress=self.progress).potential

    def look(self, number: int, potential: Potential, data: Dataset) -> LearnRound:
        """Dynamics of the model, and labels of frames where it is least sure."""
        calculator = self.moving(potential)
        walks = self.explore(number, {"model": calculator}, calculator)
        self.state.write("choosing", number)
        record, picked = self._choose(number, potential, walks, data)
        self.state.write("labelling", number)
        return self._learn(record, picked, potential)

    # --- choosing and labelling -------------------------------------------------------------------

    def _choose(
        self, number: int, potential: Potential, walks: list[Walk], known: Dataset
    ) -> tuple[LearnRound, list[Atoms]]:
        """Doubts along the trajectories, each up to where it passes the bound, and the frames to label."""
        config, scale, checked = self.config, *self._scale()
        frames: list[Atoms] = []
        kept, notes = [], [f"{w.label}: {w.cut}" for w in walks if w.cut]
        for walk, sampled in zip(walks, self.trajectories(number, len(walks))):
            doubts = (
                scale * force_doubts(sampled, potential, device=self.device)[0] if sampled else np.zeros(0)
            )
            wild = np.flatnonzero(doubts > config.upper_bound)
            # the first sample is kept in any case: a model that is lost at once must learn something
            n = max(int(wild[0]), 1) if len(wild) else len(sampled)
            if len(wild) and not walk.cut:
                notes.append(f"{walk.label}: a doubt of {doubts[wild[0]]:.3g} eV/Å at sample {wild[0] + 1}")
            frames += sampled[:n]
            kept.append(doubts[:n])
        if not frames:
            self.nothing_sampled(number, walks, "more start frames")
        doubts = np.concatenate(kept)
        record = LearnRound(
            number=number,
            threshold=config.threshold,
            trained_on=len(known),
            trajectories=len(walks),
            cut=len(notes),
            explored=len(frames),
            doubts=tuple(np.quantile(doubts, QUANTILES, method="higher").tolist()),
            scale=scale,
            checked=checked,
            accurate=int((doubts <= config.threshold).sum()),
            added=0,
            spent=self.store.spent,
            test=self.test_errors(potential, TEST_FRAMES),
            notes=tuple(notes),
        )
        path = self.output / "picked" / f"round-{number:02d}.extxyz"
        if not path.exists():
            chosen: list[int] = []
            if not is_sure(record, config):
                data = Dataset.from_atoms(frames, name=f"round {number}")
                most = min(config.frames_per_round, config.budget - self.store.spent)
                # deviations that were never compared with errors are not trusted to be small
                above = config.threshold if checked else 0.0
                chosen = choose_frames(data, doubts, potential, known, above=above, most=most)
            path.parent.mkdir(exist_ok=True)
            write_frames(path, [frames[i] for i in chosen])
        return record, read_frames(path)

    def _scale(self) -> tuple[float, bool]:
        """What deviations are multiplied by: the last ratio of errors on new labels; whether there is one."""
        ratios = [r.ratio for r in self.rounds if r.ratio is not None]
        return (ratios[-1], True) if ratios else (1.0, False)

    def _learn(self, record: LearnRound, picked: list[Atoms], potential: Potential) -> LearnRound:
        """Label the picked frames, compare, and keep them for the next round."""
        made = self.store.label(picked, progress=self.progress, learn_round=record.number)
        frames = [a for a in made if is_sound(a, self.config, "a new frame")]
        self.labels.add(record.number, frames)
        record = dataclasses.replace(record, added=len(frames), spent=self.store.spent)
        if not frames:
            return record
        errors = evaluate(potential, Dataset.from_atoms(frames), device=self.device).errors
        squares = force_doubts(frames, potential, device=self.device)[1]
        ratio = error_ratio(errors, squares, [len(a) for a in frames])
        return dataclasses.replace(record, errors=errors, ratio=ratio)

    # --- the end --------------------------------------------------------------------------------

    def finish(self, reason: str, why: str) -> LearnResult:
        """A last training on all labels where some are not learned yet, and the model with its card."""
        number = len(self.rounds)
        name, data = f"round-{number:02d}", self.labels.dataset(number)
        if self.rounds[-1].added:
            self.state.write("last training", number)
            before, name = name, f"final-{number:02d}"
            self.trained(name, before, data, last=True)
        potential = self.load(name).to(self.device)
        test = self.test_errors(potential)
        head = potential.config.heads[0]
        counts = {"rounds": number, "frames": len(data), "labels": self.store.spent}
        card = {"learned_from": self.state.identity["label"], "active_learning": counts}
        tested = {} if test is None else {"test_errors": test.to_dict()}
        head = dataclasses.replace(head, info={**head.info, **to_json({**card, **tested})})
        potential.config = potential.config.with_heads((head,))
        save_checkpoint(potential.to("cpu"), self._model, extra_info={self.mark: self.state.provenance()})
        return dataclasses.replace(self.result(reason, why), test=test)

    @property
    def _model(self) -> Path:
        return self.output / "model.safetensors"

    def result(self, reason: str, why: str) -> LearnResult:
        """What there is until now."""
        files = self.labels.files(len(self.rounds))
        return LearnResult(
            rounds=tuple(self.rounds),
            reason=reason,
            why=why,
            model=self._model,
            output=self.output,
            labelled=tuple(path for path in files if path.exists()),
            threshold=self.config.threshold,
            spent=self.store.spent,
            provenance=self.state.provenance(),
        )


def _with_labels(known: Dataset, place: int) -> Atoms:
    """A known frame as Atoms with its labels; a DataError where energy or forces are missing."""
    from ase.calculators.singlepoint import SinglePointCalculator

    frame = known[place]
    if frame.energy is None or frame.forces is None:
        raise DataError(f"known frame {place + 1} lacks energy or forces; leave it out, or give it to start")
    atoms = frame.atoms()
    stress = {} if frame.stress is None else {"stress": frame.stress}
    atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces, **stress)
    atoms.info["group"] = "known"
    return atoms
