"""Every command that writes: no output may be an input, whatever its name; what is there is not replaced unasked."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.run import signatures
from tests.cli.run import within as vqtool
from tests.training.tiny import TOKENIZER, write_recipe
from vqtool.catalog import use_files
from vqtool.commands import train

PLUGIN = Path(__file__).with_name("everything.py")
READ = {"against", "data", "condition", "start", "plugin", "codes", "latents", "into"}  # options that name what is read
SAFE = {("train", "out_dir")}  # a folder that must be new or empty
ALONE = {("convert", "out_file")}  # reads the files that are named, and none of the recipe's
# Each option that names an output: the command's other words. `CKPT`, `FILE` and `OUT` are filled in.
WRITES = {
    ("evaluate", "plot"): ["CKPT", "--data", "FILE", "--sweep", "evaluate.batch=1:2:1", "--plot", "OUT.png"],
    ("diagnose", "report"): ["CKPT", "--data", "FILE", "--report", "OUT.html"],
    ("diagnose", "plot"): ["CKPT", "--data", "FILE", "--plot", "OUT.png"],
    ("improve", "out_file"): ["CKPT", "--data", "FILE", "--out", "OUT.safetensors"],
    ("generate", "out_file"): ["CKPT", "--condition", "FILE", "--out", "OUT.npz"],
    ("forecast", "out_file"): ["CKPT", "--steps", "1", "--data", "FILE", "--out", "OUT.csv"],
    ("forecast", "plot"): ["CKPT", "--steps", "1", "--data", "FILE", "--plot", "OUT.png"],
    ("backtest", "out_file"): ["CKPT", "--horizon", "1", "--data", "FILE", "--out", "OUT.csv"],
    ("encode", "out_file"): ["CKPT", "FILE", "--out", "OUT.npz"],
    ("decode", "out_file"): ["CKPT", "FILE", "--out", "OUT.npz"],
    ("classify", "out_file"): ["CKPT", "FILE", "--out", "OUT.csv"],
    ("transmit", "out_file"): ["CKPT", "FILE", "--out", "OUT.csv"],
    ("transmit", "bits_file"): ["CKPT", "FILE", "--bits", "OUT.txt"],
    ("transmit", "symbols_file"): ["CKPT", "FILE", "--symbols", "OUT.npy"],
    ("export", "out_dir"): ["CKPT", "--to", "pt2", "--out", "OUT/encode.pt2"],
    ("codes", "out_dir"): ["CKPT", "--data", "FILE", "--out", "OUT/use.png"],
}


def takes_a_path(annotation: object) -> bool:
    """Whether an option's type is a path, or a list of them."""
    kinds = typing.get_args(annotation) or (annotation,)
    return any(kind is Path or (kind is not annotation and takes_a_path(kind)) for kind in kinds)


def options_with_paths() -> Iterator[tuple[str, str]]:
    """Every option of every command that takes a path, as the command line itself has them."""
    for name, signature in signatures().items():
        for parameter in signature.parameters.values():
            (info,) = parameter.annotation.__metadata__
            if takes_a_path(parameter.annotation.__origin__) and type(info).__name__ == "OptionInfo":
                yield name, parameter.name


def test_every_option_that_names_a_file_is_known_to_be_read_or_written() -> None:
    found = set(options_with_paths())
    assert {(command, name) for command, name in found if name not in READ} == WRITES.keys() | SAFE | ALONE
    assert all("force" in signatures()[command].parameters for command, _ in (*WRITES, *ALONE))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of a tiny recipe, whose data name a second file."""
    folder = tmp_path_factory.mktemp("outputs")
    write_recipe(folder)
    text = TOKENIZER.format(seed=0).replace('kind = "arrays"', 'kind = "everything"\nother = "other.txt"')
    text = text.replace("[train]", '[channel]\nkind = "awgn"\n[train]')
    (folder / "all.toml").write_text(text.replace('"autoencode"', '"everything"').replace("steps = 20", "steps = 1"))
    (folder / "other.txt").write_text("other data")
    use_files([PLUGIN])
    given = {"overrides": [], "seed": None, "device": "cpu", "stage": None}
    assert train.run(recipe=folder / "all.toml", out_dir=folder / "run", **given) == 0  # type: ignore[arg-type]
    yield folder / "run"
    use_files([])


def asked(key: tuple[str, str], run: Path, out: Path, data: Path, plugin: Path, *more: str) -> types.SimpleNamespace:
    """A command with its words filled in, `out` being the file that it would write."""
    words = [str({"CKPT": run, "FILE": data}.get(word, word)) for word in WRITES[key]]
    folder = words[-1].startswith("OUT/")
    return vqtool(key[0], *words[:-1], out.parent if folder else out, "--plugin", plugin, *more)


@pytest.mark.parametrize("key", WRITES, ids="-".join)
def test_an_output_that_is_an_input_is_refused_before_any_work(key: tuple[str, str], run: Path, tmp_path: Path) -> None:
    """By itself or by a link; with --force too: the checkpoint, the file given, the training data and the plugin."""
    data, plugin = tmp_path / "mine", tmp_path / "everything.py"
    data.write_text("mine")
    plugin.write_text(PLUGIN.read_text())
    checkpoint, home = run / "tokenizer.safetensors", run.parent
    inputs = [checkpoint, home / "signals.npz", home / "other.txt", plugin, *([data] if "FILE" in WRITES[key] else [])]
    before = {path: path.read_bytes() for path in inputs}
    for number, source in enumerate(inputs):
        out = tmp_path / str(number) / WRITES[key][-1].replace("OUT/", "").replace("OUT", "out")
        out.parent.mkdir()
        (out.hardlink_to if number % 2 else out.symlink_to)(source)
        done = asked(key, run, out, data, plugin, "--force")
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "is an input as well" in done.stderr, (source, done.stderr)
        assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert {path: path.read_bytes() for path in inputs} == before


@pytest.mark.parametrize("key", WRITES, ids="-".join)
def test_a_file_that_is_there_is_kept_without_force(key: tuple[str, str], run: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    data.write_text("mine")
    out = tmp_path / "o" / WRITES[key][-1].replace("OUT/", "").replace("OUT", "out")
    out.parent.mkdir()
    out.write_text("weeks of work")
    done = asked(key, run, out, data, PLUGIN)
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert "--force" in done.stderr
    assert out.read_text() == "weeks of work"


PER_INPUT = {("encode", "out_file"): "mine.safetensors", ("decode", "out_file"): "mine.npz",
             ("generate", "out_file"): "mine.npz"}  # fmt: skip
OF_ONE_KIND = {("classify", "out_file"): "is a .csv file", ("transmit", "out_file"): "is a .csv file",
               ("transmit", "bits_file"): "is not one of .txt", ("transmit", "symbols_file"): "is not one of .npy",
               }  # fmt: skip


@pytest.mark.parametrize("key", [key for key in WRITES if not WRITES[key][-1].startswith("OUT/")], ids="-".join)
def test_a_slash_at_the_end_means_a_folder(key: tuple[str, str], run: Path, tmp_path: Path) -> None:
    """Of a file for each input it is in that folder; a file of the folder's name is written by no command."""
    data = tmp_path / "mine.npy"
    data.write_text("mine")
    out = tmp_path / "new"
    words = [str({"CKPT": run, "FILE": data}.get(word, word)) for word in WRITES[key]]
    if key in PER_INPUT:
        out.mkdir()
        (out / PER_INPUT[key]).write_text("weeks of work")
    done = vqtool(key[0], *words[:-1], f"{out}/", "--plugin", PLUGIN)
    said = f"`{out / PER_INPUT[key]}` exists already" if key in PER_INPUT else f"`{out}/` names a folder"
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert OF_ONE_KIND.get(key, said) in done.stderr
    assert out.exists() == (key in PER_INPUT)


def test_a_converted_quantizer_replaces_neither_its_source_nor_the_model_it_goes_into(run: Path) -> None:
    source, into = run / "tokenizer.safetensors", run / "last.safetensors"
    before = {path: path.read_bytes() for path in (source, into)}
    for path in before:
        done = vqtool("convert", source, "--to", "encodec", "--into", into, "--out", path, "--force")
        assert done.returncode == 2
        assert "is an input as well" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_s_own_files_are_not_a_place_for_an_output(run: Path) -> None:
    """Whichever of its checkpoints is read."""
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    for name in ("metrics.jsonl", "best.safetensors", "last.safetensors", "recipe.toml"):
        done = vqtool("diagnose", run, "--report", run / name, "--force", "--plugin", PLUGIN)
        assert done.returncode == 2
        assert "is an input as well" in done.stderr
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before


def test_a_folder_onto_itself(run: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.npz").write_text("a")
    for command in ("encode", "decode"):
        done = vqtool(command, run, tmp_path / "d", "--out", tmp_path / "d", "--force", "--plugin", PLUGIN)
        assert done.returncode == 2
        done = vqtool(command, run, tmp_path / "d", "--out", tmp_path / "d" / "a.npz", "--force", "--plugin", PLUGIN)
        assert done.returncode == 2
        assert "is an input as well" in done.stderr
    assert [p.read_text() for p in (tmp_path / "d").iterdir()] == ["a"]


def test_a_folder_to_train_into_must_be_empty(run: Path) -> None:
    before = sorted(run.iterdir())
    done = vqtool("train", run.parent / "all.toml", "--out", run, "--plugin", PLUGIN)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert sorted(run.iterdir()) == before


def test_new_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").symlink_to("nowhere.toml")
    Path("my-vq").symlink_to("nowhere")
    for words in (["new", "mine", "--from", "voltage"], ["new", "plugin", "my-vq"]):
        done = vqtool(*words)
        assert done.returncode == 2
        assert "exists already" in done.stderr
    assert not Path("nowhere.toml").exists()
    assert not Path("nowhere").exists()
