"""No file runs code: every reader of every command and plugin gets a pickle that would, in its place and within it."""

from __future__ import annotations

import io
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.cli.run import signatures, within
from tests.fuzz import seeds
from vqtool.catalog import catalog

OUTPUTS = {"out_file", "out_dir", "plot", "report", "bits_file", "symbols_file"}
RUN_BY_DESIGN = {"plugin"}  # --plugin FILE.py is code, and the user names it
TINY, SERIES, VOLTAGE = (f"{{seeds}}/{name}/best.safetensors" for name in ("tiny", "series", "voltage"))
INPUTS = {  # every path that a command reads, and how
    ("train", "recipe"): "train {file} -o {dir}/new",
    ("train", "start"): "train {seeds}/tiny.toml -o {dir}/new --from {file}",
    ("resume", "run"): "resume {file}",
    ("resume", "data"): "resume {seeds}/tiny --data {file}",  # the run of which a seed is damaged has a state
    ("evaluate", "checkpoint"): "evaluate {file}",
    ("evaluate", "data"): f"evaluate {TINY} --data {{file}}",
    ("diagnose", "checkpoint"): "diagnose {file}",
    ("diagnose", "against"): f"diagnose {TINY} --against {{file}}",
    ("diagnose", "codes"): f"diagnose {TINY} --codes {{file}}",
    ("diagnose", "data"): f"diagnose {TINY} --data {{file}}",
    ("improve", "checkpoint"): "improve {file} --merge 0.1 --out {dir}/o.safetensors",
    ("improve", "data"): f"improve {TINY} --data {{file}} --steps 1 --out {{dir}}/o.safetensors",
    ("improve", "latents"): "improve {seeds}/latents/best.safetensors --latents {file} --layout NTD --out {dir}/o.st",
    ("convert", "source"): "convert {file} --to vqtool --out {dir}/o.safetensors",
    ("convert", "into"): f"convert {TINY} --to encodec --into {{file}} --out {{dir}}/o.safetensors",
    ("generate", "checkpoint"): "generate {file} --condition {seeds}/voltage.npz --out {dir}/o.npz",
    ("generate", "condition"): f"generate {VOLTAGE} --condition {{file}} --out {{dir}}/o.npz",
    ("forecast", "checkpoint"): "forecast {file} --steps 3",
    ("forecast", "data"): "forecast {seeds}/series/direct.safetensors --steps 3 --data {file}",
    ("backtest", "checkpoint"): "backtest {file} --horizon 3",
    ("backtest", "data"): "backtest {seeds}/series/direct.safetensors --horizon 3 --data {file}",
    ("encode", "checkpoint"): "encode {file} {seeds}/signals.npz --out {dir}/o.st",
    ("encode", "input_file"): f"encode {TINY} {{file}} --out {{dir}}/o.st",
    ("decode", "checkpoint"): "decode {file} {seeds}/codes/a.st --out {dir}/o.npz",
    ("decode", "codes_file"): f"decode {TINY} {{file}} --out {{dir}}/o.npz",
    ("classify", "checkpoint"): "classify {file} {seeds}/shapes",
    ("classify", "input_file"): "classify {seeds}/images/best.safetensors {file}",
    ("transmit", "checkpoint"): "transmit {file} {seeds}/shapes",
    ("transmit", "input_file"): "transmit {seeds}/images/best.safetensors {file}",
    ("export", "checkpoint"): "export {file} -o {dir}/new",
    ("codes", "checkpoint"): "codes {file} -o {dir}/new",
    ("codes", "data"): f"codes {TINY} --data {{file}} -o {{dir}}/new",
    ("check", "recipe"): "check {file}",
    ("show", "path"): "show {file}",
}
OWN = {"tiny": "arrays", "series": "series", "codec": "wav"}  # the recipes that are not made of `seeds.MODELS`
BESIDE = ("resolved.json", "metrics.jsonl", "summary.json", "environment.json")  # of a run: read where they can be


class Payload:
    """What creates the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (str(self.mark), "w")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "seeds"
    path.mkdir()
    seeds.models(path)
    return path


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "MARK"


def payloads(mark: Path) -> list[bytes]:
    """As the newest and the oldest protocol, and as ObsPy's format guessing would unpickle it."""
    stamped = ("obspy.core.stream", "obspy.core.event", Payload(mark))
    return [pickle.dumps(Payload(mark)), pickle.dumps(stamped, 0), pickle.dumps(stamped)]


def test_the_payload_works(mark: Path) -> None:
    for content in payloads(mark):
        pickle.loads(content)
        assert mark.exists()
        mark.unlink()


def test_every_kind_of_data_and_every_path_has_its_entry() -> None:
    """A new kind of data, or a new path that a command takes, must come with an entry here or in `seeds`."""
    recipes = {r for kind in seeds.KINDS for c in kind.commands for r in re.findall(r"\{seeds\}/(\w+)\.toml", c)}
    texts = [seeds.MODELS[name][0] for name in recipes & seeds.MODELS.keys()]
    covered = {
        *re.findall(r'kind = "([\w-]+)"', "".join(texts)),
        *(OWN[name] for name in recipes - seeds.MODELS.keys()),
    }
    plugins = {c.name for c in catalog().components if c.role == "data" and not c.target.startswith("vqtool_toy")}
    assert covered == plugins
    taken = {(name, p.name) for name, signature in signatures().items() for p in signature.parameters.values()
             if "Path" in str(p.annotation)}  # fmt: skip
    assert {pair for pair in taken if pair[1] not in OUTPUTS | RUN_BY_DESIGN} == INPUTS.keys()


@pytest.mark.parametrize("kind", seeds.KINDS, ids=lambda kind: kind.name)
def test_no_reader_runs_a_pickle_in_place_of_its_file(kind: seeds.Kind, root: Path, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "copy"
    if kind.folder == ".":
        folder.mkdir()
    else:
        shutil.copytree(root / kind.folder, folder)
    for content in payloads(mark)[: 1 if kind.file in BESIDE else 3]:
        (folder / kind.file).write_bytes(content)
        for command in kind.commands:
            done = within(*command.format(dir=folder, file=folder / kind.file, seeds=root).split())
            assert not mark.exists(), command
            if kind.name in ("miniseed", "sac") and "{file}" not in command:
                assert done.returncode == 0, done.stderr  # a whole archive goes on, and names the file it left out
                assert f"`{kind.file}` is a Python pickle; vqtool never unpickles files" in done.stderr
            elif kind.name in ("wav", "flac") and "{file}" not in command:
                assert done.returncode == 0, done.stderr
                assert f"1 file is skipped (not audio that can be read, or damaged): `{kind.file}`" in done.stderr
            elif kind.name in ("png", "png without a label", "jpeg"):
                assert done.returncode == 0, done.stderr
                assert "1 picture is skipped (not a picture that can be read, or damaged)" in done.stderr
            elif kind.file not in BESIDE:
                assert done.returncode != 0, (command, done.stderr)
            if kind.name in ("miniseed", "sac") and "{file}" in command:
                assert done.returncode == 2
                assert "is a Python pickle; vqtool never unpickles files" in done.stderr


@pytest.mark.parametrize("command", INPUTS.values(), ids=lambda command: command.split()[0])
def test_no_path_that_a_command_takes_is_unpickled(command: str, root: Path, tmp_path: Path, mark: Path) -> None:
    for name in ("a.pt", "a.npz"):
        for content in payloads(mark)[::2]:
            (tmp_path / name).write_bytes(content)
            done = within(*command.format(dir=tmp_path, file=tmp_path / name, seeds=root).split())
            assert not mark.exists()
            assert done.returncode != 0, done.stderr


def test_pickles_within_arrays_are_refused_by_name_and_without_unsafe_advice(
    root: Path, tmp_path: Path, mark: Path
) -> None:
    hostile = np.array([Payload(mark)] * 30, dtype=object)
    made = io.BytesIO()
    np.save(made, hostile, allow_pickle=True)
    for kind in (k for k in seeds.KINDS if k.form in ("npy", "npz")):
        with (
            zipfile.ZipFile(
                root / kind.folder / "a.npz" if kind.form == "npy" else root / kind.folder / kind.file
            ) as old,
            zipfile.ZipFile(tmp_path / "a.npz", "w") as new,
        ):
            for name in old.namelist():
                new.writestr(name, made.getvalue())
        (tmp_path / "a.npy").write_bytes(made.getvalue())
        file = tmp_path / ("a.npy" if kind.form == "npy" else "a.npz")
        for command in kind.commands:
            done = within(*command.format(dir=tmp_path, file=file, seeds=root).split())
            assert not mark.exists()
            assert done.returncode == 2, done.stderr
            assert "holds Python objects" in done.stderr
            assert "pickle=" not in done.stderr
