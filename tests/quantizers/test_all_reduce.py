"""Two ranks with uneven, masked and empty shards do what one rank with the whole batch does."""

from __future__ import annotations

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vqtool.quantizers.core.updates import reduce_stats
from vqtool.quantizers.residual import ResidualEMA

STEPS = 12


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    z = torch.randn(6, 20, 4, generator=generator) + (3.0 if step > 4 else 0.0)  # then most codes are dead: revival
    mask = torch.ones(6, 20, dtype=torch.bool)
    if step == 2:
        mask[4:] = False  # all of one rank's tokens
    return z, mask


def trained(rank: int, world: int, quantizer: ResidualEMA) -> ResidualEMA:
    for step in range(STEPS):
        z, mask = batch(step)
        cut = 6 if step == 3 else 4  # step 3: the second rank has no window at all
        mine = slice(None) if world == 1 else (slice(0, cut) if rank == 0 else slice(cut, 6))
        with torch.no_grad():
            q = quantizer(z[mine], mask[mine])
        quantizer.update(reduce_stats(q.stats))
    return quantizer


def started() -> ResidualEMA:
    quantizer = ResidualEMA(4, codebook_size=40, levels=2, decay=0.7, level_dropout=0.5)
    quantizer.initialise(batch(0)[0], seed=1)
    return quantizer


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    before = started()  # built before the process group exists
    dist.init_process_group("gloo")
    for name, quantizer in (("before", before), ("after", started())):
        torch.save(trained(rank, 2, quantizer).state_dict(), f"{folder}/{name}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.spawn(worker, (port, str(folder)), nprocs=2, join=False)
    for _ in range(180):  # seconds: the first import of a torch just installed may take one of these three minutes
        if context.join(timeout=1):
            return folder
    for process in context.processes:
        process.kill()
    pytest.fail("the ranks wait for each other")


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_ranks_equal_one(folder, when):
    alone = trained(0, 1, started()).state_dict()
    states = [torch.load(folder / f"{when}{rank}.pt") for rank in (0, 1)]
    for name, value in alone.items():
        assert torch.equal(states[0][name], states[1][name]), name
        assert torch.allclose(states[0][name].float(), value.float(), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("seed", range(1, 25))
def test_the_order_of_sums_changes_no_revival(seed):
    """Sums taken in parts differ in their last bits, and with them what a level leaves over: the sample must not."""
    alone, parts = started(), started()
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        z = torch.randn(6, 20, 4, generator=generator) + (3.0 if step > 4 else 0.0)
        with torch.no_grad():
            whole, first, second = alone(z).stats, parts(z[:4]).stats, parts(z[4:]).stats
        alone.update(whole)
        parts.update(tuple(a + b for a, b in zip(first, second, strict=True)))
    for name, value in alone.state_dict().items():
        assert torch.allclose(parts.state_dict()[name].float(), value.float(), rtol=1e-4, atol=1e-5), name


def test_without_ranks_nothing_is_touched():
    stats = started()(batch(0)[0]).stats
    assert reduce_stats(stats) == stats
    assert reduce_stats(()) == ()
