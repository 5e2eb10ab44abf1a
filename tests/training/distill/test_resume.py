"""A folder of a distillation belongs to one teacher, known by its weights; what is damaged in it is named."""

import json
import logging

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from learning_cases import tiny

from dpa2calc.description import weights_digest
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.lock import locked
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training import Dataset, DistillResult, TrainConfig, distill
from dpa2calc.training.data.readers.frame_file import labelled

COPPER = bulk("Cu", cubic=True, a=3.61)


class _Weighted(EMT):
    """A teacher of one name whose weights may differ."""

    weights = "first"

    def identity(self):
        return {"weights": self.weights}


def test_a_teacher_is_known_by_its_weights_and_damage_is_named(tmp_path, caplog):
    def go(teacher=None, **changes):
        options = {
            "md": {"temperature": 300, "timestep": 4, "steps": 4, "sample_interval": 2, "trajectories": 1},
            "train": TrainConfig(steps=2, batch_atoms=32),
            "max_rounds": 1,
            "output": tmp_path,
            "progress": False,
            **changes,
        }
        return distill(teacher or _Weighted(), COPPER, tiny(), **options)

    first = go()
    retrained = _Weighted()
    retrained.weights = "second"
    state = tmp_path / "state.json"
    content = state.read_text()
    with pytest.raises(ConfigError, match=r"with another teacher; choose another output: teacher: weights"):
        go(retrained)
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing"):
        go()
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert go().rounds == first.rounds
        assert not caplog.records
        stored = json.loads(content)
        del stored["content"]
        state.write_text(json.dumps({**stored, "version": 1}))
        assert go().rounds == first.rounds
        assert len(caplog.records) == 1 and "teacher are the same cannot be checked" in caplog.text
        assert go(test=Dataset.from_atoms([labelled(COPPER, EMT())])).rounds == first.rounds
    assert "resuming with other options than before (test frames)" in caplog.text
    damages = (
        {"version": 99},
        {"rounds": [5]},
        {"rounds": [{}]},
        {"content": None},
        {"identity": [], "version": 1},
        {"options": 3},
        {"rounds": json.loads(content)["rounds"] * 2},
    )
    for damage in damages:
        state.write_text(json.dumps({**json.loads(content), **damage}))
        with pytest.raises((ConfigError, DataError), match=r"state.json (is damaged|has version 99)"):
            go()
    for text in ("5", "[]", "{"):
        state.write_text(text)
        with pytest.raises((ConfigError, DataError), match=r"state.json"):
            go()
    state.write_text(content)
    result = tmp_path / "result.json"
    whole = json.loads(result.read_text())
    for damage in ({"rounds": [1]}, {"output": None}, {"final": 5}, {"labelled": 3}):
        result.write_text(json.dumps({**whole, **damage}))
        with pytest.raises(DataError, match=r"result.json is damaged"):
            DistillResult.load(result)


def test_a_last_training_is_that_of_the_options_of_the_call(tmp_path):
    def go(steps, rate=2e-3):
        distill(
            EMT(),
            COPPER,
            tiny(),
            md={"temperature": 300, "timestep": 4, "steps": 4, "sample_interval": 2, "trajectories": 1},
            train=TrainConfig(steps=2, batch_atoms=32, learning_rate_stop=1e-5),
            max_rounds=1,
            final_steps=steps,
            later_learning_rate=rate,
            output=tmp_path,
            progress=False,
        )
        lines = (tmp_path / "train/final-01/log.jsonl").read_text().splitlines()
        final, student = (
            weights_digest(load_checkpoint(tmp_path / name))
            for name in ("students/final-01.safetensors", "student.safetensors")
        )
        assert final == student
        return json.loads(lines[-1])["step"], final

    first = go(3)
    assert first[0] == 3 and go(3) == first
    longer, again = go(5), go(3)
    assert longer[0] == 5 and longer[1] != first[1] and again == first
    assert go(3, rate=1e-3)[1] != first[1]


def test_the_head_and_its_card_are_those_of_the_last_call(tmp_path, caplog):
    def go(rounds, **words):
        distill(
            EMT(),
            COPPER,
            tiny(),
            md={"temperature": 300, "timestep": 4, "steps": 4, "sample_interval": 2, "trajectories": 1},
            train=TrainConfig(steps=2, batch_atoms=32),
            max_rounds=rounds,
            output=tmp_path,
            progress=False,
            **words,
        )
        potential = load_checkpoint(tmp_path / "student.safetensors")
        return potential.config.heads[0], weights_digest(potential)

    first, weights = go(1, name="first", functional="PBE")
    assert (first.name, first.functional) == ("first", "PBE")
    second, same = go(1, name="second", functional="EMT", description="copper")
    assert (second.name, second.functional, second.description) == ("second", "EMT", "copper")
    assert same == weights and "name 'first' -> 'second'" in caplog.text
    third, other = go(2, name="third")
    assert third.name == "third" and other != weights
