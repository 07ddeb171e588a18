"""Splits where there are none, and what is to be reported of data with labels; shared by pictures and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vqtool.errors import VqtoolError

TEST_SHARE = 0.2
NAMED = 3
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "t10k": "test",
         "val": "valid", "valid": "valid", "validation": "valid", "dev": "valid"}  # fmt: skip


class Report:
    """Notes on how files were read, each once."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def add(self, note: str) -> None:
        """Add a sentence, if it is not there."""
        if note not in self.notes:
            self.notes.append(note)

    def counted(self, what: str, names: Sequence[str], of: str) -> None:
        """Add "3 pictures are skipped (...): `a.png`, `b.png`, `c.png`"."""
        if names:
            many = f"{len(names)} {of}s are" if len(names) > 1 else f"1 {of} is"
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self.add(f"{many} {what}: {', '.join(f'`{name}`' for name in names[:NAMED])}{more}")

    def unseen_classes(self, seen: Mapping[str, Sequence[str]]) -> None:
        """Add a note on the classes that only other parts than the training one have: no model can know them."""
        for part, classes in seen.items():
            unknown = [name for name in classes if name not in set(seen["train"])]
            if unknown:
                kind = "class is" if len(unknown) == 1 else "classes are"
                shown = ", ".join(f"`{name}`" for name in unknown[:NAMED])
                self.add(f"{len(unknown)} {kind} in `{part}` but not in `train`, so no model knows them: {shown}")


def made_split(
    labels: Sequence[object], report: Report, what: str, *, each: str = "class"
) -> tuple[list[int], list[int]]:
    """The rows to keep for training, and those held out for the test: a fifth of each class, at random by a fixed seed.

    A class with one row stays in training. `each` names the classes in the report; empty: there are none.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tolist()
    rows: dict[object, list[int]] = {}
    for index in order:
        rows.setdefault(labels[index], []).append(index)
    held = sorted(k for mine in rows.values() for k in mine[: round(TEST_SHARE * len(mine) + 0.25)][: len(mine) - 1])
    if not held:
        raise VqtoolError(
            f"there are too few {what} to hold some out for the test",
            hint=f"two of each {each}, or more" if each else None,
        )
    away = set(held)
    share = f"{len(held)} of {len(labels)} {what}, a fifth{f' of each {each}' if each else ''}"
    report.add(f"there is no test part: {share}, are held out as `test`")
    return [k for k in range(len(labels)) if k not in away], held
