"""`vqtool show` of .vqc files and streams: what they hold, without torch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.run import within
from tests.speech.test_vqc import codes_of, header, use_of
from tests.test_startup import command, loaded_after
from vqtool_speech.vqc import pack
from vqtool_speech.vqc_stream import StreamedCodes, StreamWriter

MODEL = "0123456789abcdef"


def shown(path: Path) -> dict[str, Any]:
    done = within("show", str(path), "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def stream(moments: int = 20, length: int = 1234, rate: int = 8000) -> bytes:
    """Codes of two channels and three levels; a moment is 2 tokens of 32 samples at 8 kHz."""
    file = io.BytesIO()
    writer = StreamWriter(file, StreamedCodes(8000, rate, 2, (6, 5, 5), 32, 2, MODEL))
    codes = np.random.default_rng(0).integers(0, 32, (2, 2 * moments, 3))
    writer.add(codes[:, :-2])
    writer.finish(length, codes[:, -2:])
    return file.getvalue()


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("by_use", [True, False])
def test_a_file_of_every_form(every: bool, by_use: bool, tmp_path: Path) -> None:
    h = header(levels=5, bits=10, length=3000, channels=2)
    content = pack(h, codes_of(h, 0, every=every), use_of(h) if by_use else None)
    (tmp_path / "a.vqc").write_bytes(content)
    holds = shown(tmp_path / "a.vqc")
    form = holds.pop("format")
    assert (".vqc file, version 2" in form, "by use" in form, "all levels" in form) == (True, by_use, every)
    seconds = 3000 / 44_100
    frame = 34 + 2 * 4 + 5 + 4  # by the table in vqc.py
    assert holds == {
        "file": str(tmp_path / "a.vqc"), "bytes": len(content), "model": MODEL, "seconds": pytest.approx(seconds),
        "sample_rate": 44_100, "codec_rate": 16_000, "channels": 2, "levels": 5, "code_bits": [10, 10, 10, 10, 8],
        "bitrate.kbps": pytest.approx(len(content) * 0.008 / seconds),
        "bitrate.payload_kbps": pytest.approx((len(content) - frame) * 0.008 / seconds),
    }  # fmt: skip
    table = within("show", str(tmp_path / "a.vqc")).stdout
    assert "bitrate.kbps" in table
    assert f"{seconds:.3f}" in table


def test_a_stream(tmp_path: Path) -> None:
    """Its length stands at its end; one that was cut says so, and how much came."""
    content = stream()
    (tmp_path / "s.vqc").write_bytes(content)
    holds = shown(tmp_path / "s.vqc")
    assert (holds["format"], holds["model"]) == (".vqc stream, version 3: codes as bits", MODEL)
    assert (holds["sample_rate"], holds["codec_rate"], holds["channels"], holds["levels"]) == (8000, 8000, 2, 3)
    assert holds["code_bits"] == [6, 5, 5]
    seconds, payload = 1234 / 8000, 20 * (1 + 2 * 2 * (6 + 5 + 5) // 8)
    assert holds["seconds"] == pytest.approx(seconds)
    assert holds["bitrate.kbps"] == pytest.approx(len(content) * 0.008 / seconds)
    assert holds["bitrate.payload_kbps"] == pytest.approx(payload * 0.008 / seconds)
    (tmp_path / "cut.vqc").write_bytes(content[:-3])
    holds = shown(tmp_path / "cut.vqc")
    assert "its end is missing" in holds["format"]
    assert holds["seconds"] == pytest.approx(19 * 64 / 8000)


def test_damage_and_other_versions_are_one_error(tmp_path: Path) -> None:
    content, h = stream(), header()
    file = pack(h, codes_of(h, 0))
    for name, damaged, message in (
        ("s", content[:60] + bytes([content[60] ^ 1]) + content[61:], "is damaged"),
        ("f", file[:60] + bytes([file[60] ^ 1]) + file[61:], "its checksum does not fit"),
        ("cut", file[:30], "is damaged or cut short"),
        ("head", b"VQC", "is damaged or cut short"),
        ("later", b"VQC\x09 and more", "of version 9"),
    ):
        (tmp_path / f"{name}.vqc").write_bytes(damaged)
        done = within("show", str(tmp_path / f"{name}.vqc"))
        assert (done.returncode, done.stdout) == (1, ""), name
        assert message in done.stderr, name


def test_torch_is_not_imported(tmp_path: Path) -> None:
    h = header()
    for content in (stream(), pack(h, codes_of(h, 0))):
        (tmp_path / "a.vqc").write_bytes(content)
        assert loaded_after(command("show", str(tmp_path / "a.vqc")), "torch", "vqtool_speech.shown") == {
            "vqtool_speech.shown"
        }
