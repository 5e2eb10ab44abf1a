"""The package's own threads, and the blocks of the inference kernels on them."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dpa2calc.ambient import own_threads_only
from dpa2calc.kernels.blocks import by_width, consecutive, total
from dpa2calc.kernels.threads import Workers


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """PyTorch with a number of threads in turn."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _number_in_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_each_worker_is_alone_in_torch(threads):
    found: list[int] = []
    workers = Workers()
    workers.run(lambda _: found.append(torch.get_num_threads()), [(k,) for k in range(max(threads, 2))])
    workers.close()
    assert found == [1] * len(found) or threads == 1
    assert torch.get_num_threads() == threads
    assert _number_in_a_new_thread() == threads


def test_the_number_of_another_thread_stays(threads):
    """One thread of the caller that computes with its own number changes nothing for the others."""

    def other() -> None:
        torch.get_num_threads()
        torch.set_num_threads(2)
        Workers().run(lambda _: None, [(0,), (1,)])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert torch.get_num_threads() == threads


def test_callers_in_several_threads_share_workers():
    before, workers, found = torch.get_num_threads(), Workers(), []

    def call(number: int) -> None:
        torch.get_num_threads()
        torch.set_num_threads(number)
        for _ in range(20):
            out = np.zeros(50)
            workers.split(lambda a, b: out.__setitem__(slice(a, b), 1.0), 50)  # noqa: B023
            found.append(out.sum())

    try:
        callers = [threading.Thread(target=call, args=(number,)) for number in (1, 2, 3, 2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert found == [50.0] * 80
    finally:
        workers.close()
        torch.set_num_threads(before)


def test_errors_of_workers_are_raised(threads):
    def work(part: int) -> None:
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        Workers().run(work, [(0,), (1,)] if threads > 1 else [(0,)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_after_a_fork():
    before, workers = torch.get_num_threads(), Workers()
    torch.set_num_threads(2)
    try:
        workers.run(lambda _: None, [(0,), (1,)])
        child = os.fork()
        if child == 0:
            done: list[int] = []
            try:
                workers.run(done.append, [(0,), (1,)])
            finally:
                os._exit(0 if sorted(done) == [0, 1] else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        workers.close()
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 7, 64, 1000])
def test_blocks_cover_every_row_once(n, threads):
    like = torch.zeros(1)
    blocks = consecutive(n, like, numbers=10, cache_bytes=400)
    seen, sums = torch.zeros(n), torch.zeros(blocks.parts, 1)

    def work(number: int, rows: slice, part: int) -> None:
        assert blocks.rows[number] == rows
        seen[rows] += 1
        sums[part] += rows.stop - rows.start

    blocks.each(work)
    assert bool((seen == 1).all()) and float(total(sums)) == n
    lengths = [rows.stop - rows.start for rows in blocks.rows]
    assert not lengths or max(lengths) <= 10 * min(threads, 2)
    assert len(blocks.rows) % threads == 0 or n < 10 * threads


def test_blocks_by_width_hold_every_atom_and_all_its_neighbors_once(threads):
    used = torch.rand(50, 7, generator=torch.Generator().manual_seed(1)) < 0.3
    blocks = by_width(used, torch.zeros(1), lambda width: width, cache_bytes=40)
    back, atoms = torch.zeros(50, 7, dtype=torch.bool), torch.cat([block.atoms for block in blocks.rows])
    for block in blocks.rows:
        block.put(back, block.take(used))
    assert torch.equal(back, used) and sorted(atoms.tolist()) == list(range(50))
    widths = [block.width for block in blocks.rows]
    assert widths == sorted(widths) and blocks.parts == threads
    assert by_width(used[:0], torch.zeros(1), lambda width: width, cache_bytes=40).rows == ()


def test_inside_only_our_own_threads_work():
    """PyTorch's number is one in the calling thread alone, and is back afterwards, also after an error."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        others = []
        with own_threads_only(100):
            assert (torch.get_num_threads(), Workers().count) == (1, 3)
            with own_threads_only(100):
                assert (torch.get_num_threads(), Workers().count) == (1, 3)
            thread = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
            thread.start()
            thread.join()
        assert (torch.get_num_threads(), Workers().count, others) == (3, 3, [3])
        with own_threads_only(5000):
            assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), own_threads_only(100):
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


FORKED = """
import multiprocessing, pickle, sys
import torch
from ase.build import molecule
from dpa2calc import DPA2Calculator

torch.set_num_threads(2)
torch.ones(10**6).div(2.0)  # OpenMP's threads exist now, and a forked process has none of them
calc = DPA2Calculator("student-water", compress=False)
text, atoms = pickle.dumps(calc), molecule("H2O")
energy = calc.get_potential_energy(atoms)


def work(pipe):
    pipe.send([c.get_potential_energy(molecule("H2O")) for c in (pickle.loads(text), DPA2Calculator(
        "student-water", compress=False), calc)] + [torch.get_num_threads()])


ours, theirs = multiprocessing.Pipe()
child = multiprocessing.get_context("fork").Process(target=work, args=(theirs,), daemon=True)
child.start()
if not ours.poll(120):
    child.kill()
    sys.exit("the forked process hangs")
*energies, threads = ours.recv()
assert max(abs(e - energy) for e in energies) < 1e-4 and threads == 1, (energies, energy, threads)
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_computes_where_its_parent_has():
    without = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", FORKED], env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
