"""Damaged states and logs are refused with a sentence, and those of the version before open."""

import json
import logging
import shutil

import numpy as np
import pytest
from safetensors.torch import save_file

from dpa2calc.errors import CheckpointError, ConfigError, DataError
from dpa2calc.training.runs.log import History
from dpa2calc.training.runs.state import read_tensors, write_tensors


def _drop(prefix):
    def change(header, tensors):
        for name in [n for n in tensors if n.startswith(prefix)]:
            del tensors[name]

    return change


def _shorten(prefix):
    def change(header, tensors):
        name = next(n for n in tensors if n.startswith(prefix))
        tensors[name] = tensors[name][:-1].clone()

    return change


DAMAGE = {
    "version": (lambda h, t: h.update(version=99), "its version is 99; this package reads 2 to 3"),
    "no version": (lambda h, t: h.pop("version"), "its version is None"),
    "step": (lambda h, t: h.update(step="x"), "step = 'x' is not a number"),
    "half step": (lambda h, t: h.update(step=1.5), "step = 1.5 is not a number"),
    "negative step": (lambda h, t: h.update(step=-5), "step = -5 is not a number"),
    "no step": (lambda h, t: h.pop("step"), "step = None"),
    "no sampler": (lambda h, t: h.pop("sampler"), "sampler"),
    "foreign sampler": (lambda h, t: h.update(sampler={"x": [0, 0]}), "the sampler's sets are"),
    "sampler's types": (lambda h, t: h.update(sampler={"A": ["a", 1]}), "sampler = 'a'"),
    "sampler too far": (lambda h, t: h.update(sampler={"A": [0, 5]}), "at frame 5 of 5"),
    "optimizer's steps": (lambda h, t: h.update(optimizer_steps={}), "is not a number"),
    "mean_norm": (lambda h, t: h.update(mean_norm="long"), "mean_norm = 'long'"),
    "best_score": (lambda h, t: h.update(best_score=float("nan")), "best_score = nan"),
    "no options": (lambda h, t: h.pop("train_config"), "its header is not whole"),
    "no model": (lambda h, t: h.pop("model"), "its header is not whole"),
    "options a list": (lambda h, t: h.update(train_config=[]), "its header is not whole"),
    "without the optimiser": (_drop("optimizer."), "tensor optimizer.mean.* is missing"),
    "without rotations": (_drop("optimizer.left_basis"), "left_basis"),
    "without averages": (_drop("average."), "tensor average.* is missing"),
    "without weights": (_drop("model.heads"), "tensor model.heads.* is missing"),
    "other shapes": (_shorten("model.heads"), r"of shape .*, expected torch\.float"),
    "other moments": (_shorten("optimizer.square"), r"of shape .*, expected torch\.float"),
}


@pytest.fixture
def stored(run, tmp_path):
    """A run of 3 steps, and how to write its state anew."""
    run(steps=3)
    path = tmp_path / "run/state.safetensors"
    return path, *read_tensors(path)


@pytest.mark.parametrize("version", [3, 2])
def test_a_damaged_state_is_refused(run, stored, version):
    path, tensors, header = stored
    for name, (change, message) in DAMAGE.items():
        changed = json.loads(json.dumps(_as_version_2(header) if version == 2 else header))
        kept = dict(tensors)
        change(changed, kept)
        write_tensors(path, kept, changed)
        with pytest.raises(CheckpointError, match=message) as caught:
            run(steps=4)
        assert "remove it to start again" in str(caught.value), name


def _as_version_2(header):
    old = {k: v for k, v in header.items() if k not in ("identity", "machine")}
    return {**old, "version": 2, "sizes": {"A": 5}}


def test_changed_bytes_are_refused(run, stored):
    path = stored[0]
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [9, len(content) - 3, *rng.integers(0, len(content), 10)]
    for place in places:
        wrong = bytearray(content)
        wrong[place] ^= 0x41
        path.write_bytes(bytes(wrong))
        with pytest.raises(CheckpointError, match="cannot be resumed from"):
            run(steps=4)
    for size in (0, 7, 200, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cannot be resumed from"):
            run(steps=4)
    path.write_bytes(content)
    assert run(steps=4).steps == 4


def test_a_state_of_the_version_before_opens_with_one_warning(run, stored, tmp_path, caplog, same_weights):
    path, tensors, header = stored
    shutil.copytree(tmp_path / "run", tmp_path / "same")
    save_file(tensors, path, metadata={"json": json.dumps(_as_version_2(header))})
    with pytest.raises(ConfigError, match=r"options: dtype"):
        run(steps=4, dtype="float64")
    save_file(tensors, path, metadata={"json": json.dumps({**_as_version_2(header), "sizes": {"A": 6}})})
    with pytest.raises(ConfigError, match=r"set 'A': training frames \(6 -> 5\)"):
        run(steps=4)
    save_file(tensors, path, metadata={"json": json.dumps(_as_version_2(header))})
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        run(steps=4)
    assert len(caplog.records) == 1 and "cannot be checked" in caplog.text
    run("same", steps=4)
    assert same_weights(tmp_path / "run/last.safetensors", tmp_path / "same/last.safetensors")
    assert read_tensors(path)[1]["version"] == 3


def test_a_log_with_a_foreign_line_is_refused(run, tmp_path):
    run(steps=2)
    log = tmp_path / "run/log.jsonl"
    whole = log.read_bytes()
    for line in (b"5\n", b'{"kind": "train"}\n', b"\xff\xfe\n", b"{'a': 1}\n", b'"x"', b"[" * 99999 + b"\n"):
        for content in (whole + line, line + whole, whole + line + whole):
            log.write_bytes(content)
            with pytest.raises(DataError, match=r"log.jsonl(, line \d+ is not| cannot be read)"):
                run(steps=4)
            with pytest.raises(DataError, match=r"log\.jsonl"):
                History.read(log)
    log.write_bytes(whole + b'{"kind": "train", "st')  # a run killed while it wrote
    assert run(steps=4).finished
