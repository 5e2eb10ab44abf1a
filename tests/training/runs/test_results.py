"""Results of runs on disk: they come back as they were, also from a folder that was moved."""

import json

import numpy as np
import pytest
import torch

from dpa2calc.errors import CheckpointError, DataError
from dpa2calc.training import FinetuneConfig, FinetuneResult, History, TrainResult, finetune


def _same_weights(one, two) -> bool:
    return all(torch.equal(v, two.potential.state_dict()[n]) for n, v in one.potential.state_dict().items())


def test_a_run_comes_back_with_its_weights_and_its_log(run, tmp_path):
    result = run(steps=3)
    path = result.save(tmp_path / "run/result.json")
    again = TrainResult.load(path)
    assert _same_weights(result, again) and again.history == result.history
    assert again.summary() == result.summary() and again.output == tmp_path / "run"
    assert "3 steps, finished\nerrors (RMSE) at step 3, validation:\n  A: " in again.summary()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    again = TrainResult.load(moved / "result.json")
    assert again.output == moved and _same_weights(result, again)
    content = json.loads((moved / "result.json").read_text())
    for damage in ({"steps": "three"}, {"history": 5}, {"output": None}):
        (moved / "result.json").write_text(json.dumps({**content, **damage}))
        with pytest.raises(DataError, match=r"result.json is damaged"):
            TrainResult.load(moved / "result.json")
    (moved / "result.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"not a result written by FinetuneResult.save"):
        FinetuneResult.load(moved / "result.json")
    (moved / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"last.safetensors"):
        TrainResult.load(moved / "result.json")


def test_a_fine_tuning_comes_back_with_its_matches(run, lj_data, tmp_path):
    base = run(steps=1).potential
    config = FinetuneConfig(steps=1, batch_atoms=8)
    result = finetune(base, lj_data(3, name="new"), config, output=tmp_path / "fine", progress=False)
    again = FinetuneResult.load(result.save(tmp_path / "fine/result.json"))
    assert again.matches == result.matches and again.start_head == "A" and again.matches[0].head == "A"
    assert _same_weights(result, again) and again.summary() == result.summary()


def test_a_log_can_be_kept_apart_from_its_run(run, tmp_path):
    history = run(steps=3).history
    again = History.load(history.save(tmp_path / "history.npz"))
    assert again == history and repr(again).startswith("<History:\n3 records of training, 3 of validation")
    steps, errors = again.series("A", "force_rmse")
    assert steps == [0, 2, 3] and np.isfinite(errors).all()
