"""Active learning of EMT copper by a model of some hundred parameters: where it is unsure, it asks."""

import dataclasses
import json
import os
from pathlib import Path

import ase.io
import learning_cases
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from emt_cases import with_emt
from kills import work_with_kills
from learning_cases import SMALL, TRAIN, Counted, copper, dynamics_of, learn, learn_small

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.store.checkpoint import checkpoint_info
from dpa2calc.training import Dataset, LearnResult, evaluate
from dpa2calc.training.data.readers.frame_file import labelled

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:atom .* is far from what head")


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    """The label source's own dynamics, which the model never sees."""
    return dynamics_of(copper(), 10)


@pytest.fixture(scope="module")
def source() -> Counted:
    return Counted()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, held_out, source) -> LearnResult:
    return learn(tmp_path_factory.mktemp("learning") / "run", source, test=held_out)


def test_the_model_gets_better_and_surer_along_fresh_dynamics(finished, held_out):
    first, last = finished.rounds[0], finished.rounds[-1]
    assert finished.test.force_rmse < 0.6 * first.test.force_rmse
    assert evaluate(finished.model, held_out).errors.force_rmse == pytest.approx(
        finished.test.force_rmse, rel=1e-6
    )
    assert last.doubts[2] / last.scale < first.doubts[2]  # the model's own, before it is scaled to errors
    assert first.scale == 1.0 and not first.checked and last.checked
    assert last.scale == pytest.approx(finished.rounds[-2].ratio)
    assert finished.reason == "budget" or finished.reason == "max_rounds"


def test_no_structure_is_labelled_twice_and_the_budget_holds(finished, source):
    assert len(source.asked) == len(set(source.asked)) == finished.spent <= 14
    files = sorted((finished.output / "labels").glob("*.extxyz"))
    assert len(files) == finished.spent == len(finished.frames())
    assert [r.added for r in finished.rounds] == [
        r.spent - s for r, s in zip(finished.rounds, [4, *(r.spent for r in finished.rounds)])
    ]
    atoms = ase.io.read(files[0])
    assert atoms.info["labelled_by"] == "Counted" and len(atoms.info["label_identity"]) == 24
    check = with_emt(atoms.copy())
    np.testing.assert_allclose(check.get_forces(), atoms.get_forces(), atol=1e-6)


def test_finished_work_is_not_done_again_and_more_budget_goes_on(finished, source, held_out):
    asked = len(source.asked)
    again = learn(finished.output, source, test=held_out)
    assert again.rounds == finished.rounds and len(source.asked) == asked
    assert again.summary() == finished.summary()
    loaded = LearnResult.load(finished.output / "result.json")
    assert loaded.rounds == finished.rounds and loaded.model == finished.model
    assert "stopped: " in loaded.summary() and (finished.output / "rounds.png").stat().st_size > 5000


def test_the_model_says_what_it_learned_from(finished):
    info = checkpoint_info(finished.model)
    (head,) = info.config.heads
    assert head.name == "learned" and head.info["learned_from"]["class"] == "Counted"
    assert head.info["active_learning"]["labels"] == finished.spent
    assert info.uncertainty["learned"].atoms == 4 * len(finished.frames())


def test_it_stops_when_fresh_trajectories_hold_no_surprise(tmp_path):
    source = Counted()
    result = learn(
        tmp_path, source, threshold=4.0, upper_bound=9.0, train=TRAIN.replace(steps=60), frames_per_round=2
    )
    # the first round has no measured scale and is not trusted, though its doubts are small; the second is
    assert result.reason == "accurate" and len(result.rounds) == 2
    assert [r.added for r in result.rounds] == [2, 0] and result.spent == 6
    assert result.potential.config.heads[0].name == "learned"


def test_known_frames_are_learned_and_cost_nothing(tmp_path):
    frames = []
    for k in range(3):
        atoms = copper()
        atoms.rattle(0.1, seed=k)
        frames.append(labelled(atoms, EMT()))
    source = Counted()
    start = [frames[0].copy(), copper()]
    result = learn(
        tmp_path,
        source,
        start=start,
        known=Dataset.from_atoms(frames),
        perturbed=0,
        budget=3,
        frames_per_round=2,
        train=TRAIN.replace(steps=20),
        max_rounds=1,
    )
    assert result.rounds[0].trained_on == 4  # three known ones, one of which is a start frame, and one more
    assert result.spent == 3 == len(source.asked)
    known = {np.round(a.positions, 6).tobytes() for a in frames}
    assert not known & set(source.asked)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_goes_on_to_the_same_labels(tmp_path):
    whole = learn_small(tmp_path / "whole")
    folder, path = tmp_path / "killed", Path(learning_cases.__file__).parent
    work_with_kills("learning_cases", "learn_small", folder, (3, 7, 5, 12, 9, 6, 11), path=path)
    again = LearnResult.load(tmp_path / "killed/result.json")
    assert [p.read_text() for p in again.labelled] == [p.read_text() for p in whole.labelled]
    names = [sorted(p.name for p in (tmp_path / f / "labels").iterdir()) for f in ("whole", "killed")]
    assert names[0] == names[1] and len(names[0]) == whole.spent
    same = [dataclasses.replace(r, seconds=0.0) for r in whole.rounds]
    assert [dataclasses.replace(r, seconds=0.0) for r in again.rounds] == same


def test_a_resumed_run_takes_the_name_of_the_call(tmp_path):
    first = learn(tmp_path, **{**SMALL, "max_rounds": 1})
    assert first.potential.config.heads[0].name == "learned"
    again = learn(tmp_path, **SMALL, name="renamed")
    assert again.rounds[:1] == first.rounds and len(again.rounds) == 2
    assert [head.name for head in again.potential.config.heads] == ["renamed"]


def test_a_start_frame_that_was_given_up_is_not_asked_for_again(tmp_path):
    class Moody(Counted):
        """Fails on its first frame, as long as it is in that mood."""

        moody, first = True, None

        def calculate(self, atoms=None, *args, **kwargs):
            key = np.round(atoms.positions, 6).tobytes()
            Moody.first = Moody.first or key
            if Moody.moody and key == Moody.first:
                raise RuntimeError("no convergence")
            super().calculate(atoms, *args, **kwargs)

    options = {**SMALL, "budget": 4, "max_rounds": 1}
    before = learn(tmp_path, Moody(), **options)
    start = before.labelled[0].read_text()
    assert before.spent == 4 and before.rounds[0].trained_on == 3
    Moody.moody = False  # whatever was learned from stays what it was, and the budget is spent
    again = learn(tmp_path, Moody(), **options)
    assert again.spent == 4 and again.labelled[0].read_text() == start
    more = learn(tmp_path, Moody(), **{**options, "budget": 9, "perturbed": 4})
    assert more.labelled[0].read_text() != start and more.spent == 6  # asked for with other copies


def test_another_source_model_or_start_is_refused(finished):
    with pytest.raises(ConfigError, match=r"holds active learning with another label; .*EMT"):
        learn(finished.output, EMT())
    with pytest.raises(ConfigError, match=r"holds active learning with another start frame"):
        learn(finished.output, Counted(), start=bulk("Cu", a=3.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 5}, r"label = 5 is not allowed; allowed: an ASE calculator, the name of a folder"),
        ({"budget": 3}, r"budget = 3 is too small: 0 labels are spent, and 4 start frames and their copies"),
        ({"budgett": 3}, r"unknown option budgett = 3; did you mean budget\?"),
        ({"threshold": 6}, r"upper_bound = 5.0 is not allowed; allowed: above threshold"),
        ({"start": bulk("Au")}, "the start frames contains? Au|Au"),
        ({"start": 5}, "expected the names of files, or Atoms, got int"),
        ({"start": [[copper()]]}, "the start frames: expected the names of files, or Atoms, got list"),
        ({"train": TRAIN.replace(time_limit=5)}, "train.time_limit = 5 is not allowed in active learning"),
    ],
)
def test_wrong_options_are_named(tmp_path, changes, message):
    with pytest.raises((ConfigError, DataError), match=message):
        learn(tmp_path / "out", **changes)


def test_a_source_that_fails_is_an_error(tmp_path):
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            raise RuntimeError("no license")

    with pytest.raises(DataError, match=r"Broken fails on all 4 frames that were to be labelled: no license"):
        learn(tmp_path, Broken())
    assert json.loads((tmp_path / "state.json").read_text())["phase"] == "labelling"
