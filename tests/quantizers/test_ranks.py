"""A model in DistributedDataParallel on two ranks: `attach` and the start do what one process with all rows does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import vqtool
from tests.quantizers.test_updates import Model, batches, vectors


def trained(model: nn.Module, wrapped: nn.Module, rows: slice) -> torch.Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    vqtool.attach(optimizer, model)
    for x in batches(5, rows=16):
        optimizer.zero_grad()
        wrapped(x[rows]).backward()
        optimizer.step()
    return vectors(model)


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    model = Model()
    dist.init_process_group("gloo")
    mine = slice(0, 8) if rank == 0 else slice(8, 16)
    torch.save(trained(model, DistributedDataParallel(model), mine), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.spawn(worker, (port, str(folder)), nprocs=2, join=False)
    for _ in range(18):  # a cold import of torch on a busy machine takes minutes
        if context.join(timeout=10):
            break
    else:
        pytest.fail("the ranks wait for each other")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_both_ranks_end_with_the_same_codes(of_ranks: list[torch.Tensor]) -> None:
    assert torch.equal(*of_ranks)


def test_they_are_those_of_one_process(of_ranks: list[torch.Tensor]) -> None:
    model = Model()
    assert torch.allclose(trained(model, model, slice(None)), of_ranks[0], atol=1e-5)
