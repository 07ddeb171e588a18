"""Runs as folders: the rows of `metrics.jsonl` that are whole."""

from __future__ import annotations

from pathlib import Path

from vqtool.model.runs import rows_of


def test_incomplete_lines_are_left_out(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n' + b"[" * 100_000 + b'\n\x00\xff\n{"step": 5, "l')
    assert rows_of(metrics) == [{"step": 1}]
    assert rows_of(tmp_path / "nothing.jsonl") == []
