"""Two gloo ranks: the same codebooks on both, two halves of a batch equal one whole, and one signal stops both."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.multiprocessing as mp

from tests.training.tiny import write_recipe

OPTIONS = ["stage.tokenizer.steps=8", "train.clip=0.5"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def work(rank: int, world: int, port: int, folder: str, options: list[str], stop_at: int) -> None:
    """One rank: trains the tiny recipe and leaves its parts and its return code behind."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    from vqtool.recipe import load
    from vqtool.training import loop
    from vqtool.training.rundir import RunDir
    from vqtool.training.runtime import runtime
    from vqtool.training.session import Session

    base = Path(folder)
    original = loop.StageLoop._step

    def signalled(self: loop.StageLoop, *args: object) -> dict[str, float]:
        if rank == 1 and self.progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)  # type: ignore[arg-type]

    loop.StageLoop._step = signalled  # type: ignore[method-assign]
    recipe = load(base / "tiny.toml", options)
    with runtime("cpu") as here:
        run = RunDir.create(recipe, base / f"run{world}", argv=[], device="cpu", writes=here.is_main)
        session = Session(recipe, run, here)
        session.start()
        code = session.train()
        state = {k: v.clone().contiguous() for k, v in session.model.parts.state_dict().items()}
        safetensors.torch.save_file(state, base / f"state{world}.{rank}.safetensors")
        (base / f"code{world}.{rank}").write_text(f"{code} {session.done}")
        (base / f"knobs{world}.{rank}").write_text(json.dumps(session.model.knobs()))


def run_ranks(world: int, folder: Path, options: list[str], stop_at: int = -1) -> list[dict[str, torch.Tensor]]:
    mp.start_processes(work, (world, free_port(), str(folder), options, stop_at), nprocs=world, start_method="spawn")
    return [safetensors.torch.load_file(folder / f"state{world}.{rank}.safetensors") for rank in range(world)]


@pytest.mark.parametrize("kind", ["residual-ema", "ema"])
def test_two_halves_equal_one_batch(tmp_path: Path, kind: str) -> None:
    write_recipe(tmp_path)
    options = list(OPTIONS)
    if kind == "ema":
        text = (tmp_path / "tiny.toml").read_text().replace("levels = 2\n", "").replace("residual-ema", "ema")
        (tmp_path / "tiny.toml").write_text(text)
    whole = run_ranks(1, tmp_path, options)[0]
    first, second = run_ranks(2, tmp_path, options)
    for name in whole:
        assert torch.equal(first[name], second[name]), name
        if whole[name].is_floating_point():
            torch.testing.assert_close(first[name], whole[name], rtol=5e-3, atol=5e-4, msg=name)


def test_both_end_a_stage_with_the_knobs_of_its_best_step(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    text = (tmp_path / "tiny.toml").read_text().replace("levels = 2\n", "").replace("residual-ema", "soft-ema")
    text += 'schedule."quantizer.temperature" = { kind = "linear", from = 1.0, to = 0.1 }\n'
    (tmp_path / "tiny.toml").write_text(text)
    run_ranks(2, tmp_path, [*OPTIONS, "train.valid_every=2", "train.lr=0.5", "train.warmup=0.0"])
    first, second = (json.loads((tmp_path / f"knobs2.{rank}").read_text()) for rank in range(2))
    assert first == second
    assert first["quantizer.temperature"] > 0.15, "the best step was not the last"


def test_a_signal_to_one_rank_stops_both(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    run_ranks(2, tmp_path, OPTIONS, stop_at=3)
    codes = [(tmp_path / f"code2.{rank}").read_text().split()[0] for rank in (0, 1)]
    assert codes == [str(int(signal.SIGTERM))] * 2
    assert (tmp_path / "run2" / "resume.safetensors").is_file()
