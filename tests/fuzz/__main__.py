"""`python -m tests.fuzz --count 1500`: damaged files of every kind, how vqtool ended on each, and a table by kind."""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and pyarrow are loaded

import torch

from tests.fuzz import seeds
from tests.fuzz.formats import FORMATS
from tests.fuzz.worker import BAD, End, ended

SWAPPED = 0.04  # of the mutants are whole files of another kind
NOT_YET: tuple[str, ...] = ()  # kinds that the tests leave out, since faults of theirs are known


def mutant(number: int, seed: int, kinds: list[seeds.Kind], root: Path, folder: Path) -> tuple[seeds.Kind, str]:
    """Mutant `number` in `folder`, which is made anew: its kind, and the command to run."""
    rng, kind = Random(f"{seed} {number}"), kinds[number % len(kinds)]
    shutil.rmtree(folder, ignore_errors=True)
    if kind.folder == ".":
        folder.mkdir()
        for path in root.glob("*.*"):
            shutil.copy(path, folder)
    else:
        shutil.copytree(root / kind.folder, folder)
    file = folder / kind.file
    if rng.random() < SWAPPED:
        other = rng.choice([k for k in seeds.KINDS if k.form != kind.form])
        file.write_bytes((root / other.folder / other.file).read_bytes())
    else:
        file.write_bytes(rng.choice(FORMATS[kind.form])(file.read_bytes(), rng))
    return kind, rng.choice(kind.commands).format(dir=folder, file=file, seeds=root)


def run(numbers: range, seed: int, kinds: list[seeds.Kind], root: Path, *, debug: bool = False
        ) -> Iterator[tuple[int, seeds.Kind, str, End]]:  # fmt: skip
    """How vqtool ended on each mutant."""
    folder = root.parent / "mutant"
    for number in numbers:
        kind, command = mutant(number, seed, kinds, root, folder)
        yield number, kind, command, ended(command, root.parent, debug=debug)


def prepared(root: Path, kinds: list[seeds.Kind], *, quick: bool) -> None:
    """The seeds, made in a child, since a process that has trained cannot fork one that trains; then each is read once.

    Reading loads the libraries into this process, so that children need not.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            seeds.models(root)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the seeds could not be made")
    for path in root.glob("*.*"):  # a copy of a run looks for its data beside its folder
        shutil.copy(path, root.parent)
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.AdamW([weight]).step()  # the first step of a process loads half a second of modules
    for kind in kinds:
        for command in kind.commands:
            copy = root.parent / "whole"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(root if kind.folder == "." else root / kind.folder, copy)
            words = command.format(dir=copy, file=copy / kind.file, seeds=root)
            if words.startswith(("encode", "decode", "show", "forecast")):
                seeds.run(*words.split())
            elif not quick:
                found = ended(words, root.parent)
                assert found.code == 0, f"{words}: {found.text}"
    gc.freeze()  # the collector of a child would touch, and so copy, all of this process's pages


def table(found: dict[str, Counter[str]]) -> str:
    """A line a kind."""
    names = ["ok", "refused", *(name for name in BAD if any(name in one for one in found.values()))]
    rows = [["kind", *names], *([kind, *(str(found[kind][name]) for name in names)] for kind in found)]
    total = sum(found.values(), Counter())
    rows.append(["all", *(str(total[name]) for name in names)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Run and report; 1 where any command did what none may."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this one mutant, with all that it says; its files are kept")
    parser.add_argument("--kinds", nargs="*", help="only these kinds")
    parser.add_argument("--tested", action="store_true", help="as the tests do: without `NOT_YET`, seeds unchecked")
    asked = parser.parse_args()
    kinds = [k for k in seeds.KINDS if not (asked.tested and k.name in NOT_YET)]
    chosen = [k for k in kinds if asked.kinds is None or k.name in asked.kinds]
    began = time.perf_counter()
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        root = home / "seeds"
        root.mkdir()
        prepared(root, chosen, quick=asked.tested)
        numbers = range(asked.count) if asked.only is None else range(asked.only, asked.only + 1)
        return report(numbers, asked.seed, chosen, root, asked.only is not None, began)
    finally:
        if asked.only is None:
            shutil.rmtree(home, ignore_errors=True)


def report(numbers: range, seed: int, kinds: list[seeds.Kind], root: Path, debug: bool, began: float) -> int:
    """Say how each ended that ended badly, then the table."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    longest, ready = 0.0, time.perf_counter()
    for number, kind, command, end in run(numbers, seed, kinds, root, debug=debug):
        found[kind.name][end.how] += 1
        longest = max(longest, end.seconds)
        if debug:
            print(f"{number} {kind.name}: {command}\n{end.how}, exit {end.code}, {end.seconds:.1f} s\n{end.text}")
        elif end.how in BAD:
            result = " | ".join(end.text.strip().splitlines()[-6:])[-600:]
            print(f"{number} {kind.name}: {end.how}: vqtool {command.split()[0]}: {result}", flush=True)
    print(table(found))
    spent = time.perf_counter()
    took = f"in {spent - ready:.0f} s after {ready - began:.0f} s to prepare; the longest took {longest:.1f} s"
    print(f"{len(numbers)} mutants {took}")
    return int(any(one[name] for one in found.values() for name in BAD))


if __name__ == "__main__":
    sys.exit(main())
