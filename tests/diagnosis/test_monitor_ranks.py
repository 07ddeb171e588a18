"""A monitor on two ranks: counts are those of all ranks, so that both find the same."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import vqtool
from tests.diagnosis.test_monitor import Model, batch, made_vq


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    model = Model(made_vq())
    dist.init_process_group("gloo")
    wrapped = DistributedDataParallel(model)
    monitor = vqtool.CodebookMonitor(wrapped, every=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    vqtool.attach(optimizer, model)
    for step in range(1, 5):
        optimizer.zero_grad()
        wrapped(batch(10 * step + rank)).backward()
        optimizer.step()
        monitor.look(step)
    counts = {name: torch.tensor(n) for name, n in monitor.counts.items()}
    torch.save(
        {"counts": counts, "rows": list(monitor.rows), "names": [tap.outlet.path for tap in monitor.taps]},
        f"{folder}/{rank}.pt",
    )
    del wrapped, monitor  # torch hangs at times where what reduces gradients outlives its group
    gc.collect()
    dist.destroy_process_group()


def test_counts_are_summed_over_ranks(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.spawn(worker, (port, str(tmp_path)), nprocs=2, join=False)
    for _ in range(18):  # a cold import of torch on a busy machine takes minutes
        if context.join(timeout=10):
            break
    else:
        pytest.fail("the ranks wait for each other")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["names"] == ["quantizer"]
    assert first["rows"] == second["rows"]
    assert "commitment" in first["rows"][-1]
    assert int(first["counts"]["level0"].sum()) == 2 * 2 * 256
    assert all(torch.equal(first["counts"][name], second["counts"][name]) for name in ("level0", "level1"))
