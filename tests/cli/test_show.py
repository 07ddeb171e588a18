"""`vqtool show`: from headers and small files, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe.text import GOOD
from vqtool.commands import show
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import parse

pytestmark = pytest.mark.usefixtures("toy")


def checkpoint(path: Path, **changed: str) -> bytes:
    """A checkpoint with one small tensor, written by hand: 8 bytes of length, JSON, numbers."""
    resolved = json.dumps(parse(GOOD, path=path).resolved())
    metadata = {
        "format": "vqtool/1", "version": "0.1.0", "recipe": GOOD, "resolved": resolved, "stage": "first", "step": "100",
        "plugins": json.dumps({"toy": "1.2"}), "metrics": json.dumps({"error.mean": 0.125}), "knobs": "{}",
    }  # fmt: skip
    table = {
        "__metadata__": metadata | changed,
        "parts.quantizer.codebook": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    header = json.dumps(table).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(24)
    path.write_bytes(content)
    return content


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path / "c.safetensors")
    assert show.run(path=tmp_path / "c.safetensors") == 0
    output = capsys.readouterr().out
    for part in (
        "first, step 100",
        "toy 1.2",
        "codebook_size=16",
        "path=waves.npy",
        "error.mean",
        "0.125",
        "commitment 0.25",
    ):
        assert part in output
    assert [line.split() for line in output.splitlines() if line.startswith("quantizer ")][-1] == [
        "quantizer",
        "1",
        "6",
    ]


def test_a_checkpoint_of_a_later_vqtool_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "c.safetensors", format="vqtool/99")
    with pytest.raises(VqtoolError, match="has the format vqtool/99"):
        show.run(path=tmp_path / "c.safetensors")


def test_a_checkpoint_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path / "c.safetensors")
    out.mode = "json"
    show.run(path=tmp_path / "c.safetensors")
    result = json.loads(capsys.readouterr().out)
    assert (result["stage"], result["step"], result["metrics"]) == ("first", 100, {"error.mean": 0.125})
    assert result["recipe"] == GOOD
    assert result["tensors"] == {"parts.quantizer.codebook": {"dtype": "F32", "shape": [2, 3]}}


def test_every_truncation_is_one_clear_error(tmp_path: Path) -> None:
    content = checkpoint(tmp_path / "c.safetensors")
    for length in (0, 1, 7, 8, 9, 100, len(content) - 25, len(content) - 24, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(VqtoolError, match=r"is truncated|is not a safetensors file"):
            show.run(path=tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + b"\x00" * 100, "is damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "is not a file of tensors"),
        ((2).to_bytes(8, "little") + b"[]", "is not a file of tensors"),
        ((20).to_bytes(8, "little") + b'{"a": {"shape": [1]}', "is not a safetensors file"),
        ((6).to_bytes(8, "little") + b"\xff\xff\xff\xff\xff\xff", "is not a file of tensors"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(VqtoolError, match=message):
        show.run(path=tmp_path / "f")


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="there is no checkpoint or run"):
        show.run(path=tmp_path / "none")
    with pytest.raises(VqtoolError, match=r"holds no file of weights"):
        show.run(path=tmp_path)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "resolved.json").write_text(json.dumps(parse(GOOD).resolved()))
    (tmp_path / "environment.json").write_text(
        json.dumps({"vqtool": "0.1.0", "device": "cpu", "plugins": {"toy": "1.2"}})
    )
    rows = [{"stage": "first", "split": "train", "step": s, "loss": s / 8} for s in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"half')
    checkpoint(tmp_path / "resume.safetensors")
    show.run(path=tmp_path)
    output = capsys.readouterr().out
    assert "resumable" in output
    assert "0.25" in output
    scores = {"splits": {"held": {"model": {"error": 0.1}, "baselines": {"plain": {"error": 0.5}}}}}
    (tmp_path / "summary.json").write_text(json.dumps(scores))
    show.run(path=tmp_path)
    assert "resumable" in capsys.readouterr().out  # as after `train --stage`, which evaluates that stage
    (tmp_path / "resume.safetensors").unlink()
    show.run(path=tmp_path)
    output = capsys.readouterr().out
    assert "finished" in output
    assert ["error", "0.1", "0.5"] in [line.split() for line in output.splitlines()]
    out.mode = "json"
    show.run(path=tmp_path)
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["last"][0]["step"], document["summary"]) == ("finished", 2, scores)


def test_a_damaged_run_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "resolved.json").write_text("{")
    with pytest.raises(VqtoolError, match="is damaged"):
        show.run(path=tmp_path)


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    checkpoint(tmp_path / "c.safetensors")
    code = (
        "import sys; from pathlib import Path; from vqtool.commands import show\n"
        f"show.run(path=Path({str(tmp_path / 'c.safetensors')!r}))\n"
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
