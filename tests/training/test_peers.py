"""A rank that is killed: the others say so within seconds, also where they wait for it forever, and the run resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.training.test_ranks import free_port
from tests.training.tiny import write_recipe
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime
from vqtool.training.session import resume

WORLD = 3


def work(rank: int, port: int, base: Path) -> int:
    """One of the ranks: the last kills itself, and the one before waits forever, as with NCCL."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    from vqtool.command import guarded
    from vqtool.training import loop, peers

    peers.GRACE = 1.0
    original = loop.StageLoop._step

    def step(self: loop.StageLoop, *args: object) -> dict[str, float]:
        if self.progress.step == 5 and rank == WORLD - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.progress.step == 5 and rank == WORLD - 2:
            time.sleep(120)
        return original(self, *args)  # type: ignore[arg-type]

    loop.StageLoop._step = step  # type: ignore[method-assign]
    sys.stderr = (base / f"said{rank}").open("w")
    asked = {"recipe": base / "tiny.toml", "overrides": [], "out_dir": base / "run", "seed": None, "device": "cpu"}
    return guarded("train", False, False, [], {**asked, "stage": None})


def main(base: Path, port: int) -> None:
    """Fork the ranks, so that torch is loaded once, and print how each ended, and after how long: [code, seconds]."""
    torch.set_num_threads(1)
    ranks = []
    for rank in range(WORLD):
        child = os.fork()
        if not child:
            os._exit(work(rank, port, base))
        ranks.append(child)
    ended = {}
    while len(ended) < WORLD:
        child, status = os.wait()
        ended[ranks.index(child)] = (os.waitstatus_to_exitcode(status), time.monotonic())
    print(json.dumps([ended[rank] for rank in range(WORLD)]))


def test_the_others_say_which_rank_is_gone(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_peers", str(tmp_path), str(free_port())],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    ended = json.loads(done.stdout)
    results = [(tmp_path / f"said{rank}").read_text() for rank in range(WORLD)]
    assert [code for code, _ in ended] == [1, 1, -signal.SIGKILL], results
    assert max(at for _, at in ended) - ended[-1][1] < 30
    for text in results[:-1]:
        assert f"rank 2 is gone; continue with `vqtool resume {tmp_path / 'run'}`" in text
    with RunDir.open(tmp_path / "run") as run:
        again, state = resume(run, Runtime(torch.device("cpu")))
        assert again.train(state=state) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
