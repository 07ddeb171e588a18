"""Breaks tiny trainings on purpose, goes on as the messages say, and compares each with one that nothing happened to.

    python -m tests.training.kills 200

Half are killed (SIGKILL) at a random file operation, in a write after half of it; every third of these is killed again
while it resumes. The others are killed at a random time, or run into a full disk, or another process wants their run.
`... kills 60 0 full` tries one of these only. Each process is a fork of this one, which never trains itself: torch is
loaded once. Exits 1 if a result differs, 0 otherwise.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vqtool.commands.train  # noqa: F401
from tests.training.tiny import write_recipe
from vqtool.command import guarded
from vqtool.model import checkpoint
from vqtool.model.build import build
from vqtool.model.data import open_data
from vqtool.recipe import load

OPTIONS = ["stage.tokenizer.steps=6", "stage.prior.steps=4", "train.valid_every=2", "train.log_every=2",
           "train.save_seconds=0.01", "train.average=0.9"]  # fmt: skip
COMPARED = ("tokenizer", "prior", "last", "best")


class Trap:
    """Counts operations on files in this process, and from the `at`-th on does something else: `kill`, or `full`."""

    def __init__(self, at: int, action: str) -> None:
        self.at, self.action, self.count = at, action, 0

    def step(self, *, grows: bool, half: Callable[[], object] | None = None) -> None:
        """Called before each operation; `half` does half of it."""
        self.count += 1
        if self.action == "kill" and self.count == self.at:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "full" and self.count >= self.at and grows:
            if half is not None:
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def set(self) -> None:
        """Put it under everything that changes files."""
        opened = io.open

        def opening(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+"):
                return opened(file, mode, *rest, **named)
            self.step(grows=True)
            return Writer(opened(file, mode, *rest, **named), self)

        io.open = builtins.open = opening
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "truncate", "ftruncate", "fsync", "mkdir",
                     "chmod", "fchmod", "link", "write"):  # fmt: skip
            setattr(os, name, self._watched(getattr(os, name), grows=name in ("fsync", "mkdir", "write")))

    def _watched(self, function: Callable[..., Any], *, grows: bool) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.step(grows=grows)
            return function(*arguments, **named)

        return watched


class Writer:
    """A file opened for writing whose writes are trapped."""

    def __init__(self, file: Any, trap: Trap) -> None:
        self.file, self.trap = file, trap

    def write(self, data: Any) -> Any:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.trap.step(grows=True, half=half)
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass
class Ended:
    """How a process ended."""

    code: int  # minus the signal's number where one killed it
    output: str


class Bench:
    """A recipe with its data, what training it gives, and the processes that train it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = write_recipe(folder, prior=True)
        recipe = load(self.recipe)
        build(recipe, open_data(recipe).spec)  # what is imported here, no fork has to
        began = time.monotonic()
        ended = self.call("train", folder / "whole", Trap(0, "count"))
        self.seconds = time.monotonic() - began
        assert ended.code == 0, ended.output
        self.operations = int((folder / "count").read_text())

    def start(self, command: str, run: Path, trap: Trap | None = None) -> int:
        """A fork that trains or resumes; its process id."""
        child = os.fork()
        if child:
            return child
        code = 70
        with contextlib.suppress(BaseException), (self.folder / f"output.{os.getpid()}").open("w") as output:
            sys.stderr = sys.stdout = output
            train = {"recipe": self.recipe, "overrides": OPTIONS, "out_dir": run, "seed": None, "stage": None}
            if trap is not None:
                trap.set()
            code = guarded("train" if command == "train" else "train:resume", False, False, [],
                           {"device": "cpu", **(train if command == "train" else {"run": run})})  # fmt: skip
            output.flush()
            if trap is not None and trap.action == "count":
                count = trap.count
                (self.folder / "count").write_text(str(count))
        os._exit(code)

    def wait(self, child: int) -> Ended:
        """How a fork ended."""
        _, status = os.waitpid(child, 0)
        output = self.folder / f"output.{child}"
        text = output.read_text() if output.exists() else ""
        output.unlink(missing_ok=True)
        return Ended(os.waitstatus_to_exitcode(status), text)

    def call(self, command: str, run: Path, trap: Trap | None = None) -> Ended:
        """A fork that trains or resumes, to its end."""
        return self.wait(self.start(command, run, trap))

    def differs(self, run: Path) -> str:
        """What is not as in the unbroken run; nothing if all is."""
        whole = self.folder / "whole"
        files = [sorted(os.listdir(folder)) for folder in (whole, run)]
        if files[0] != files[1]:
            return f"files {sorted(set(files[0]) ^ set(files[1]))}"
        for name in COMPARED:
            first, second = (checkpoint.load(folder / f"{name}.safetensors") for folder in (whole, run))
            if first.metadata != second.metadata:
                return (
                    f"metadata of {name}: {[k for k in first.metadata if first.metadata[k] != second.metadata.get(k)]}"
                )
            if first.tensors.keys() != second.tensors.keys():
                return f"names in {name}"
            wrong = [n for n, t in first.tensors.items() if not torch.equal(t, second.tensors[n])]
            if wrong:
                return f"tensors in {name}: {wrong[:3]}"
        figures = [json.loads((folder / "summary.json").read_text())["splits"] for folder in (whole, run)]
        if json.dumps(figures[0]) != json.dumps(figures[1]):
            return "the figures of the summary"
        return "" if self.rows(whole) == self.rows(run) else "the rows of metrics.jsonl"

    def rows(self, run: Path) -> list[str]:
        """The rows of metrics.jsonl, without the time that they took."""
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [json.dumps({k: v for k, v in row.items() if k != "seconds"}) for row in rows]

    def go_on(self, run: Path, ended: Ended, again: Trap | None = None) -> str:
        """Resume, or train again where nothing was saved, until it is done; what went wrong, or nothing."""
        for _ in range(4):
            if ended.code == 0:
                return self.differs(run)
            if (run / "summary.json").is_file() and not (run / "resume.safetensors").is_file():
                ended = self.call("resume", run)  # killed after all was done: only its lock is left
                return self.differs(run) if "it is finished" in ended.output else f"is finished, and resume: {ended}"
            if ended.code == 1 and not re.search(
                r"free some space, then (run `vqtool resume|train again)", ended.output
            ):
                return f"another hint: {ended.output[-300:]}"
            saved = (run / "resume.safetensors").is_file()
            refused = None if saved else self.call("resume", run)
            if refused is not None and (
                refused.code != 2 or not re.search("stopped before it saved|no run", refused.output)
            ):
                return f"nothing saved, and resume ends with {refused.code}: {refused.output[-300:]}"
            if ended.code == 1 and saved != ("vqtool resume" in ended.output):
                return f"a hint that leads nowhere: {ended.output[-300:]}"
            ended, again = self.call("resume" if saved else "train", run, again), None
            if ended.code not in (0, 1, -signal.SIGKILL):
                return f"ends with {ended.code}: {ended.output[-300:]}"
        return "does not end"


def killed(bench: Bench, run: Path, chance: random.Random) -> tuple[str, str]:
    """Killed at an operation, and perhaps once more; what was done, and what went wrong."""
    at = chance.randint(1, bench.operations)
    again = chance.randint(1, bench.operations // 2) if chance.random() < 1 / 3 else 0
    ended = bench.call("train", run, Trap(at, "kill"))
    problem = bench.go_on(run, ended, Trap(again, "kill") if again else None)
    return f"killed at operation {at}" + (f", then at {again}" if again else ""), problem


def killed_at_a_time(bench: Bench, run: Path, chance: random.Random) -> tuple[str, str]:
    """Killed after a while."""
    after = chance.uniform(0, bench.seconds)
    child = bench.start("train", run)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return f"killed after {after:.3f} s", bench.go_on(run, bench.wait(child))


def full(bench: Bench, run: Path, chance: random.Random) -> tuple[str, str]:
    """The disk is full from some operation on."""
    at = chance.randint(1, bench.operations)
    ended = bench.call("train", run, Trap(at, "full"))
    return f"disk full from operation {at} on", bench.go_on(run, ended)


def raced(bench: Bench, run: Path, chance: random.Random) -> tuple[str, str]:
    """Others want to resume or train while it trains; then it is killed, and two resume at once."""
    child = bench.start("train", run)
    time.sleep(chance.uniform(0.1, 0.6) * bench.seconds)
    others = [bench.call("resume", run), bench.call("train", run)]
    os.kill(child, signal.SIGKILL)
    ended = bench.wait(child)
    allowed = r"in use by|is finished" + ("" if (run / "resume.safetensors").is_file() else "|before it saved|no run")
    for other, pattern in zip(others, (allowed, "in use by|not empty"), strict=True):
        if other.code == 0 or not re.search(pattern, other.output):
            return "raced", f"another process ends with {other.code}: {other.output[-300:]}"
    if (run / "resume.safetensors").is_file():
        both = [bench.wait(each) for each in [bench.start("resume", run), bench.start("resume", run)]]
        if sorted(each.code for each in both)[0] != 0 or not re.search(allowed, both[0].output + both[1].output):
            return "raced", f"of two that resume: {[(each.code, each.output[-200:]) for each in both]}"
        ended = Ended(0, "")
    return "raced", bench.go_on(run, ended)


TRIALS = {"killed": killed, "time": killed_at_a_time, "full": full, "raced": raced}


def main(trials: int, seed: int = 0, only: str = "") -> int:
    """Run so many trials; the number of those that went wrong."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for number in range(trials):
            run = Path(folder) / "run"
            trial = TRIALS.get(only) or (killed, killed_at_a_time, killed, full, killed, raced)[number % 6]
            what, problem = trial(bench, run, chance)
            if problem:
                wrong += 1
                print(f"{number}: {what}: {problem}", flush=True)
            shutil.rmtree(run, ignore_errors=True)
    print(f"{trials} trials over {bench.operations} operations: {wrong} went wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:3]), *sys.argv[3:])))
