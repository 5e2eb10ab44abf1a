"""Runs resume what they are a part of, and nothing else: identity, damage, kills, locks, disks."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import json
import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import dpa2calc.checkpoint as checkpoint
from dpa2calc.checkpoint import load_checkpoint
from dpa2calc.errors import CheckpointError, ConfigError, DataError, OutputError
from dpa2calc.files.lock import locked
from dpa2calc.training.config import TrainConfig
from dpa2calc.training.dataset import Dataset
from dpa2calc.training.history import History
from dpa2calc.training.preparation import TrainingSet, new_potential
from dpa2calc.training.run import pretrain, train
from dpa2calc.training.state import read_tensors, write_tensors

FAST = TrainConfig(
    steps=4,
    batch_atoms=8,
    learning_rate=5e-3,
    learning_rate_stop=1e-4,
    ema_decay=0.9,
    checkpoint_every=2,
    validate_every=2,
    log_every=1,
    final_bias_frames=4,
)


def _frames(data: Dataset, **changes) -> Dataset:
    """The set with its third frame changed."""
    frames = list(data.frames)
    frames[2] = dataclasses.replace(frames[2], **{k: f(frames[2]) for k, f in changes.items()})
    return dataclasses.replace(data, frames=tuple(frames))


def _weights(path):
    return load_checkpoint(path).state_dict()


def _equal(a, b):
    a, b = _weights(a), _weights(b)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def run(tiny_model, lj_data, tmp_path):
    """Function: train to 4 steps in a folder, with anything changed."""

    def go(folder="run", *, model=None, data=None, validation=None, **options):
        return train(
            model or tiny_model(),
            data or lj_data(5),
            FAST.replace(**options),
            output=tmp_path / folder,
            validation=validation or lj_data(2, seed=7),
            progress=False,
        )

    return go


# --- identity -----------------------------------------------------------------------------------

OTHER_DATA = {
    "energy": (lambda d: _frames(d, energy=lambda f: f.energy + 1e-9), r"set 'A': training labels"),
    "forces": (lambda d: _frames(d, forces=lambda f: -f.forces), r"set 'A': training labels"),
    "no forces": (lambda d: _frames(d, forces=lambda f: None), r"set 'A': training labels"),
    "virial": (lambda d: _frames(d, virial=lambda f: 2 * f.virial), r"set 'A': training labels"),
    "positions": (
        lambda d: _frames(d, positions=lambda f: f.positions + 1e-6),
        "set 'A': training structures",
    ),
    "elements": (lambda d: _frames(d, numbers=lambda f: f.numbers * 0 + 10), "set 'A': training structures"),
    "open": (lambda d: _frames(d, pbc=lambda f: ~f.pbc), "set 'A': training structures"),
    "order": (lambda d: d.subset([1, 0, 2, 3, 4]), "set 'A': training structures; set 'A': training labels"),
    "fewer": (lambda d: d.subset(range(4)), r"set 'A': training frames \(5 -> 4\)"),
}


def test_other_data_are_refused_and_named(run, lj_data, tmp_path):
    run(steps=1)
    before = (tmp_path / "run/state.safetensors").read_bytes()
    for change, message in OTHER_DATA.values():
        with pytest.raises(ConfigError, match=f"other work; different are {message}.*choose another output"):
            run(data=change(lj_data(5)))
    other = _frames(lj_data(3, seed=7), energy=lambda f: 0.0).subset([0, 2])
    with pytest.raises(ConfigError, match=r"are set 'A': validation structures; .*validation labels"):
        run(validation=other)
    assert (tmp_path / "run/state.safetensors").read_bytes() == before


def test_other_options_and_models_are_refused_and_named(run, tiny_model):
    run(steps=1)
    for option, value, shown in (
        ("dtype", "float64", r'dtype \("float32" -> "float64"\)'),
        ("learning_rate", 1e-3, r"learning_rate \(0.005 -> 0.001\)"),
        ("optimizer", "adam", "optimizer"),
        ("batch_atoms", 16, "batch_atoms"),
        ("force_prefactor_start", 1.0, "force_prefactor_start"),
        ("seed", 2, "seed"),
        ("ema_decay", 0.0, "ema_decay"),
    ):
        with pytest.raises(ConfigError, match=f"different are options: {shown}"):
            run(**{option: value})
    with pytest.raises(ConfigError, match=r"model: type_map"):
        run(model=tiny_model(type_map=("Ar",)))
    wide = dataclasses.replace(
        tiny_model().descriptor, repinit=tiny_model().descriptor.repinit, concat_output_tebd=False
    )
    with pytest.raises(ConfigError, match=r"model: descriptor.concat_output_tebd \(true -> false\)"):
        run(model=dataclasses.replace(tiny_model(), descriptor=wide))
    with pytest.raises(ConfigError, match=r"starting model: weights"):
        run(model=new_potential(tiny_model(), seed=5))


def test_another_starting_model_weight_head_or_order_of_sets(tiny_model, lj_data, tmp_path):
    sets = {"A": TrainingSet(lj_data(3)), "B": TrainingSet(lj_data(3, seed=2))}
    start = new_potential(tiny_model(("A", "B")), seed=3)

    def go(model=start, sets=sets):
        return pretrain(model, sets, FAST.replace(steps=2), output=tmp_path, progress=False)

    go()
    with pytest.raises(ConfigError, match="starting model: weights"):
        go(model=new_potential(tiny_model(("A", "B")), seed=4))
    with pytest.raises(ConfigError, match=r"set 'B': weight \(1.0 -> 2.0\)"):
        go(sets={**sets, "B": dataclasses.replace(sets["B"], weight=2)})
    with pytest.raises(ConfigError, match=r"set 'B': head \(\"B\" -> \"A\"\)"):
        go(sets={**sets, "B": dataclasses.replace(sets["B"], head="A")})
    with pytest.raises(ConfigError, match=r"set 'A': place \(0 -> 1\)"):
        go(sets={"B": sets["B"], "A": sets["A"]})
    with pytest.raises(ConfigError, match=r"set 'B'"):
        go(sets={"A": sets["A"]})
    assert go().steps == 2


def test_length_and_reports_may_change_but_a_longer_run_is_not_taken_for_a_shorter(run, caplog):
    run(steps=2)
    with caplog.at_level(logging.WARNING):
        result = run(
            steps=4,
            log_every=2,
            checkpoint_every=1,
            validate_every=4,
            keep="last",
            device="cpu",
            prefetch=1,
            early_stopping=9,
            time_limit=1e3,
            neighbor_cache_mb=0,
        )
    assert result.steps == 4 and not caplog.records
    with pytest.raises(ConfigError, match=r"holds a run of 4 steps, more than steps = 3; give at least 4"):
        run(steps=3)


def test_other_threads_are_said(run, caplog):
    run(steps=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with caplog.at_level(logging.WARNING):
            run(steps=2)
    finally:
        torch.set_num_threads(threads)
    assert len(caplog.records) == 1
    assert f"threads {threads} -> {threads + 1}; the last bits of the weights may differ" in caplog.text


def test_the_shared_stage_belongs_to_its_data(tiny_model, lj_data, tmp_path):
    sets = {"A": lj_data(3), "B": lj_data(3, seed=2)}
    options = {"output": tmp_path, "progress": False}
    config = FAST.replace(shared_steps=3, steps=2)
    stopped = pretrain(tiny_model(("A", "B")), sets, config.replace(time_limit=1e-9), **options)
    assert not stopped.finished and not (tmp_path / "state.safetensors").exists()
    with pytest.raises(ConfigError, match=r"shared belongs to other work; .*set 'B': training labels"):
        pretrain(
            tiny_model(("A", "B")), {**sets, "B": _frames(sets["B"], energy=lambda f: 1.0)}, config, **options
        )
    assert pretrain(tiny_model(("A", "B")), sets, config, **options).finished


# --- damaged states -----------------------------------------------------------------------------


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
    "step": (lambda h, t: h.update(step="x"), "step = 'x' is no number"),
    "half step": (lambda h, t: h.update(step=1.5), "step = 1.5 is no number"),
    "negative step": (lambda h, t: h.update(step=-5), "step = -5 is no number"),
    "no step": (lambda h, t: h.pop("step"), "step = None"),
    "no sampler": (lambda h, t: h.pop("sampler"), "sampler"),
    "foreign sampler": (lambda h, t: h.update(sampler={"x": [0, 0]}), "the sampler's sets are"),
    "sampler's types": (lambda h, t: h.update(sampler={"A": ["a", 1]}), "sampler = 'a'"),
    "sampler too far": (lambda h, t: h.update(sampler={"A": [0, 5]}), "at frame 5 of 5"),
    "optimizer's steps": (lambda h, t: h.update(optimizer_steps={}), "is no number"),
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


def test_a_state_of_the_version_before_opens_with_one_warning(run, stored, tmp_path, caplog):
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
    assert _equal(tmp_path / "run/last.safetensors", tmp_path / "same/last.safetensors")
    assert read_tensors(path)[1]["version"] == 3


def test_a_log_with_a_foreign_line_is_refused(run, tmp_path):
    run(steps=2)
    log = tmp_path / "run/log.jsonl"
    whole = log.read_bytes()
    for line in (b"5\n", b'{"kind": "train"}\n', b"\xff\xfe\n", b"{'a': 1}\n", b'"x"', b"[" * 99999 + b"\n"):
        for content in (whole + line, line + whole, whole + line + whole):
            log.write_bytes(content)
            with pytest.raises(DataError, match=r"log.jsonl(, line \d+ is no record| cannot be read)"):
                run(steps=4)
            with pytest.raises(DataError, match=r"log\.jsonl"):
                History.read(log)
    log.write_bytes(whole + b'{"kind": "train", "st')  # a run killed while it wrote
    assert run(steps=4).finished


# --- kills, locks, disks ------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for `kill -9`: nothing of the package catches it."""


def _killed_at(monkeypatch, n):
    """Raise at the n-th opening for writing, flush to disk or renaming; returns the counter."""
    count = [0]

    def counted(function, counts=lambda *a, **k: True):
        def call(*args, **options):
            if counts(*args, **options):
                count[0] += 1
                if count[0] == n:
                    raise Killed
            return function(*args, **options)

        return call

    def writes(file, mode="r", *args, **options):
        return isinstance(file, (str, os.PathLike)) and mode not in ("r", "rb")

    monkeypatch.setattr(builtins, "open", counted(open, writes))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    return count


def test_killed_at_any_file_operation_it_resumes_to_the_same_bits(run, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        total = _killed_at(patch, -1)
        run("whole")
    assert total[0] > 20
    for n in (*range(1, 4), *range(5, total[0] - 3, 5), *range(total[0] - 3, total[0] + 1)):
        with pytest.MonkeyPatch.context() as patch:
            _killed_at(patch, n)
            with pytest.raises(Killed):
                run(f"killed {n}")
        result = run(f"killed {n}")
        assert result.finished
        for name in ("last", "best", "model"):
            one, two = (tmp_path / f"{f}/{name}.safetensors" for f in ("whole", f"killed {n}"))
            assert _equal(one, two), (n, name)
        steps = [r["step"] for r in History.read(tmp_path / f"killed {n}/log.jsonl").train]
        assert steps == [1, 2, 3, 4]
        assert not list((tmp_path / f"killed {n}").glob(".*.partial*"))


def test_a_second_process_is_kept_out_and_a_stale_lock_is_not_in_the_way(run, tmp_path):
    run(steps=1)
    with locked(tmp_path / "run"), pytest.raises(ConfigError, match=r"another run is writing to .*run; wait"):
        run()
    assert (tmp_path / "run/.lock").exists()
    assert run().finished


def test_a_full_disk_and_a_missing_place_are_named(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.* cannot be written"):
        run("file/run")
    run(steps=1)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="cannot be written: No space left on device; free some space"):
            run()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(OutputError, match=r"has 0.001 MB left, but a checkpoint needs at least \d"):
            run()

    def foreign(*args, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", foreign)
        with pytest.raises(OutputError, match=r"safetensors cannot be written: .*No space left on device"):
            run()
    assert run().finished


# --- what a run leaves --------------------------------------------------------------------------


def test_every_run_leaves_the_files_that_the_docs_name(tiny_model, lj_data, tmp_path):
    options = {"progress": False}
    train(tiny_model(), lj_data(4), FAST, output=tmp_path / "without", **options)
    last, best, model = (tmp_path / f"without/{n}.safetensors" for n in ("last", "best", "model"))
    assert _equal(last, best) and _equal(last, model)
    train(tiny_model(), lj_data(4), FAST, output=tmp_path / "with", validation=lj_data(2, seed=5), **options)
    assert _equal(tmp_path / "with/best.safetensors", tmp_path / "with/model.safetensors")
    config = FAST.replace(keep="last")
    train(tiny_model(), lj_data(4), config, output=tmp_path / "last", validation=lj_data(2), **options)
    assert _equal(tmp_path / "last/last.safetensors", tmp_path / "last/model.safetensors")
    model.unlink()  # as a run of an earlier version left it
    train(tiny_model(), lj_data(4), FAST, output=tmp_path / "without", **options)
    assert _equal(last, model)
    stopped = train(
        tiny_model(), lj_data(4), FAST.replace(time_limit=1e-9), output=tmp_path / "stop", **options
    )
    assert not stopped.finished and not (tmp_path / "stop/model.safetensors").exists()


def test_a_run_that_stopped_early_does_no_more_steps(tiny_model, lj_data, tmp_path):
    config = FAST.replace(
        steps=40, learning_rate=1e-9, learning_rate_stop=1e-10, early_stopping=2, validate_every=1
    )
    options = {"validation": lj_data(2), "output": tmp_path, "progress": False}
    first = train(tiny_model(), lj_data(4), config, **options)
    assert first.steps < 40
    assert train(tiny_model(), lj_data(4), config, **options).steps == first.steps
