"""Runs resume what they are a part of, and nothing else: identity, damage, kills, locks, disks."""

import builtins
import dataclasses
import errno
import logging
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

import dpa2calc.store.checkpoint as checkpoint
from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.lock import locked
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.fit.run import pretrain, train
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.runs.log import History


def _frames(data: Dataset, **changes) -> Dataset:
    """The set with its third frame changed."""
    frames = list(data.frames)
    frames[2] = dataclasses.replace(frames[2], **{k: f(frames[2]) for k, f in changes.items()})
    return dataclasses.replace(data, frames=tuple(frames))


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


def test_another_starting_model_weight_head_or_order_of_sets(tiny_model, lj_data, tmp_path, short):
    sets = {"A": TrainingSet(lj_data(3)), "B": TrainingSet(lj_data(3, seed=2))}
    start = new_potential(tiny_model(("A", "B")), seed=3)

    def go(model=start, sets=sets):
        return pretrain(model, sets, short.replace(steps=2), output=tmp_path, progress=False)

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


def test_the_shared_stage_belongs_to_its_data(tiny_model, lj_data, tmp_path, short):
    sets = {"A": lj_data(3), "B": lj_data(3, seed=2)}
    options = {"output": tmp_path, "progress": False}
    config = short.replace(shared_steps=3, steps=2)
    stopped = pretrain(tiny_model(("A", "B")), sets, config.replace(time_limit=1e-9), **options)
    assert not stopped.finished and not (tmp_path / "state.safetensors").exists()
    with pytest.raises(ConfigError, match=r"shared belongs to other work; .*set 'B': training labels"):
        pretrain(
            tiny_model(("A", "B")), {**sets, "B": _frames(sets["B"], energy=lambda f: 1.0)}, config, **options
        )
    assert pretrain(tiny_model(("A", "B")), sets, config, **options).finished


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


def test_killed_at_any_file_operation_it_resumes_to_the_same_bits(run, tmp_path, same_weights):
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
            assert same_weights(one, two), (n, name)
        steps = [r["step"] for r in History.read(tmp_path / f"killed {n}/log.jsonl").train]
        assert steps == [1, 2, 3, 4]
        assert not list((tmp_path / f"killed {n}").glob(".*.partial*"))


def test_a_second_process_is_kept_out_and_a_stale_lock_is_not_in_the_way(run, tmp_path):
    run(steps=1)
    with locked(tmp_path / "run"), pytest.raises(ConfigError, match=r"another run is writing to .*run; wait"):
        run()
    (tmp_path / "run/.lock").touch()  # as a kill leaves it
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


def test_every_run_leaves_the_files_that_the_docs_name(tiny_model, lj_data, tmp_path, short, same_weights):
    options = {"progress": False}
    train(tiny_model(), lj_data(4), short, output=tmp_path / "without", **options)
    last, best, model = (tmp_path / f"without/{n}.safetensors" for n in ("last", "best", "model"))
    assert same_weights(last, best) and same_weights(last, model)
    train(
        tiny_model(), lj_data(4), short, output=tmp_path / "with", validation=lj_data(10, seed=5), **options
    )
    assert same_weights(tmp_path / "with/best.safetensors", tmp_path / "with/model.safetensors")
    config = short.replace(keep="last")
    train(tiny_model(), lj_data(4), config, output=tmp_path / "last", validation=lj_data(2), **options)
    assert same_weights(tmp_path / "last/last.safetensors", tmp_path / "last/model.safetensors")
    model.unlink()  # as a run of an earlier version left it
    train(tiny_model(), lj_data(4), short, output=tmp_path / "without", **options)
    assert same_weights(last, model)
    stopped = train(
        tiny_model(), lj_data(4), short.replace(time_limit=1e-9), output=tmp_path / "stop", **options
    )
    assert not stopped.finished and not (tmp_path / "stop/model.safetensors").exists()


def test_a_run_that_stopped_early_does_no_more_steps(tiny_model, lj_data, tmp_path, short):
    config = short.replace(
        steps=40, learning_rate=1e-9, learning_rate_stop=1e-10, early_stopping=2, validate_every=1
    )
    options = {"validation": lj_data(2), "output": tmp_path, "progress": False}
    first = train(tiny_model(), lj_data(4), config, **options)
    assert first.steps < 40
    assert train(tiny_model(), lj_data(4), config, **options).steps == first.steps
