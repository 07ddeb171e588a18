"""What a run logs can be read back from the file that W&B writes offline."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import vqtool
from tests.training.tiny import write_recipe

BLOCK = 1 << 15  # of the log format: records begin with crc (4), length (2) and kind (1); 0 pads a block


def payloads(content: bytes) -> Iterator[bytes]:
    """The records of a `.wandb` file: the log format of LevelDB behind a header of 7 bytes."""
    at, begun = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        begun += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def logged(folder: Path) -> list[dict[str, Any]]:
    """Every row that was logged offline under a run's folder."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed (extra `wandb`)")
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for payload in payloads(file.read_bytes()):
        record = pb.Record.FromString(payload)
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                         for item in record.history.item})  # fmt: skip
    return rows


def test_every_row_of_a_run_is_there(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (extra `wandb`)")
    environment = {"WANDB_PROJECT": "vqtool", "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    done = vqtool("train", write_recipe(tmp_path), "-o", tmp_path / "run", **environment)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stdout + done.stderr  # neither a warning nor a line of its own
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [(row["step"], row["mse"]) for row in rows if row["split"] == "train"]
    key = "train/tokenizer/mse"
    seen = [(row["tokenizer/step"], row[key]) for row in logged(tmp_path / "run") if key in row]
    assert [step for step, _ in trained][:2] == [1, 5]
    assert seen == [(step, pytest.approx(value, rel=1e-6)) for step, value in trained]


def test_without_a_project_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed wandb sends nothing by itself: it must be asked for."""
    import vqtool_wandb

    class Run:
        folder = tmp_path

    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setattr(vqtool_wandb.importlib.util, "find_spec", lambda name: pytest.fail("it looked for wandb"))
    vqtool_wandb.vqtool_metrics(run=Run(), row={"stage": "a", "split": "train", "step": 1, "mse": 1.0})
    vqtool_wandb.vqtool_run_finished(run=Run(), status="done")
    assert list(tmp_path.iterdir()) == []
    assert "WANDB_PROJECT" not in os.environ
