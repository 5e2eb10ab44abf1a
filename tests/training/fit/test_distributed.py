"""Two processes give the gradients and weights of one with the joint batch."""

import multiprocessing
import os
import socket

import pytest
import torch
import torch.distributed as dist

from dpa2calc.errors import ConfigError
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training import energy_bias
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.finetune import finetune as finetuning
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.fit import run
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.runs.log import History
from dpa2calc.training.runs.processes import Processes

CONFIG = TrainConfig(
    gradient_clip_batch=1.0,
    steps=8,
    batch_atoms=8,
    batches_per_step=2,
    dtype="float64",
    learning_rate=1e-2,
    ema_decay=0.9,
    gradient_clip_relative=2.0,
    validate_every=4,
    checkpoint_every=4,
    log_every=2,
)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _worker(rank, port, function, arguments):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    try:
        function(Processes.from_environment(), *arguments)
    finally:
        dist.destroy_process_group()


def _two(function, *arguments):
    """Run a function in two forked processes; returns their exit codes."""
    port = _free_port()
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_worker, args=(r, port, function, arguments)) for r in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def _pretrain(processes, model, sets, config, output):
    pretrain(model, sets, config, output=output, processes=processes, progress=False)


def _same(a, b, tolerance):
    a, b = load_checkpoint(a).state_dict(), load_checkpoint(b).state_dict()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("labels", ["energies and forces", "forces only"])
def test_two_processes_are_one(tiny_model, lj_data, tmp_path, labels):
    prefactors = {}
    if labels == "forces only":
        prefactors = {"energy_prefactor_start": 0.0, "energy_prefactor_limit": 0.0}
    # Head C is drawn almost never: it gets no gradient in most steps, on either process.
    sets = {
        "A": TrainingSet(lj_data(5), lj_data(3, seed=4)),
        "B": TrainingSet(lj_data(4, shift=1.0, repeat=2), weight=0.7),
        "C": TrainingSet(lj_data(4, shift=2.0), weight=0.02),
    }
    model, config = tiny_model(("A", "B", "C")), CONFIG.replace(**prefactors)
    pretrain(model, sets, config, output=tmp_path / "one", progress=False)
    assert _two(_pretrain, model, sets, config, tmp_path / "two") == [0, 0]
    _same(tmp_path / "one/last.safetensors", tmp_path / "two/last.safetensors", 1e-9)
    one, two = (History.read(tmp_path / f / "log.jsonl") for f in ("one", "two"))
    assert [r["step"] for r in one.train] == [r["step"] for r in two.train]
    for a, b in zip(one.train, two.train):
        assert a["sets"].keys() == b["sets"].keys()
        assert b["sets"]["A"]["force_rmse"] == pytest.approx(a["sets"]["A"]["force_rmse"], rel=1e-6)
    assert two.validation[-1]["sets"]["A"]["energy_rmse"] == pytest.approx(
        one.validation[-1]["sets"]["A"]["energy_rmse"], rel=1e-6
    )


def test_going_on_with_another_number_of_processes(tiny_model, lj_data, tmp_path):
    sets, model = {"A": TrainingSet(lj_data(5))}, tiny_model()
    pretrain(model, sets, CONFIG, output=tmp_path / "one", progress=False)
    pretrain(model, sets, CONFIG.replace(time_limit=1e-9), output=tmp_path / "mixed", progress=False)
    assert _two(_pretrain, model, sets, CONFIG, tmp_path / "mixed") == [0, 0]
    _same(tmp_path / "one/last.safetensors", tmp_path / "mixed/last.safetensors", 1e-9)


def _no_fit(*_, **__):
    raise AssertionError("a process beside the first one fits")


def _fits_by_the_first(processes, call, output, *arguments):
    """Only the first process fits and chooses; its results are those of the other, too."""
    if not processes.first:
        energy_bias.robust_bias = run._fit_to_data = finetuning._choose = finetuning._fit_bias = _no_fit
    result = call(*arguments, output=output, processes=processes, progress=False)
    torch.save(result.potential.state_dict(), output / f"rank-{processes.rank}.pt")
    if call is finetune:
        assert [match.head for match in result.matches] == ["A"]


def test_fits_are_made_once_and_all_get_them(tiny_model, lj_data, tmp_path):
    changes = {"steps": 2, "final_bias_frames": 5}
    data, fresh, tuned = lj_data(5), tmp_path / "fresh", tmp_path / "tuned"
    assert _two(
        _fits_by_the_first, pretrain, fresh, tiny_model(), {"A": data}, CONFIG.replace(**changes)
    ) == [
        0,
        0,
    ]
    options = FinetuneConfig(**{**vars(CONFIG), **changes})
    model = load_checkpoint(fresh / "last.safetensors")
    assert _two(_fits_by_the_first, finetune, tuned, model, lj_data(5, shift=0.5), options) == [0, 0]
    for folder in (fresh, tuned):
        one, other = (torch.load(folder / f"rank-{rank}.pt") for rank in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)


def _gradients(processes, output):
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (2, 3, 1)]
    parameters[0].grad = torch.full((2,), 1.0 + processes.rank)
    if processes.rank == 1:
        parameters[1].grad = torch.arange(3.0)
    flags = processes.sum_gradients(parameters, torch.tensor([float(processes.rank), 0.0]))
    assert parameters[0].grad.tolist() == [3.0, 3.0]
    assert parameters[1].grad.tolist() == [0.0, 1.0, 2.0]
    assert parameters[2].grad is None
    assert flags.tolist() == [1.0, 0.0]


def test_a_parameter_without_gradient_stays_without(tmp_path):
    assert _two(_gradients, tmp_path) == [0, 0]


def test_too_few_batches_for_the_processes(tiny_model, lj_data, tmp_path):
    with pytest.raises(ConfigError, match="batches_per_step = 1 is below the number of processes"):
        pretrain(
            tiny_model(),
            {"A": lj_data(3)},
            CONFIG.replace(batches_per_step=1),
            output=tmp_path,
            processes=Processes(0, 2),
        )
