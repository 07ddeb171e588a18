"""A checkpoint or run of anyone: nothing is taken unchecked, and what cannot be used is one error that says why."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.run import within
from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.api import DataSpec
from vqtool.diagnosis.reading import report_of
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.model.bounds import size_asked
from vqtool.model.load import from_checkpoint

CODES = "parts.quantizer.levels.0.codebook.codes"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that can be resumed: its second stage has not begun."""
    folder = tmp_path_factory.mktemp("untrusted")
    made = session(write_recipe(folder, prior=True), folder / "run", ["stage.tokenizer.steps=2"])
    assert made.train(until="tokenizer") == 0
    return folder / "run"


def changed(run: Path, target: Path, *, metadata: Change | None = None, tensors: Change | None = None,
            name: str = "tokenizer") -> Path:  # fmt: skip
    """A checkpoint of the run with other metadata or tensors, written as vqtool writes it."""
    read = checkpoint.load(run / f"{name}.safetensors")
    values, kept = copy.deepcopy({n: v for n, v in read.metadata.items() if n != "format"}), dict(read.tensors)
    if metadata is not None:
        metadata(values)
    if tensors is not None:
        tensors(kept)
    checkpoint.save(target, kept, values)
    return target


def in_recipe(part: str, **options: Any) -> Change:
    return lambda metadata: metadata["resolved"]["parts"][part]["options"].update(options)


def replaced(name: str, value: Any) -> Change:
    return lambda metadata: metadata.update({name: value})


def stage_called(name: str) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        metadata["resolved"]["stages"][0]["name"] = metadata["stage"] = name

    return change


def part_called(name: str) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        metadata["resolved"]["parts"][name] = metadata["resolved"]["parts"].pop("encoder")

    return change


BAD: dict[str, tuple[Change, str]] = {
    "stage names a place": (stage_called("../../x"), "the name of a stage should be of letters"),
    "stage called as a file": (stage_called("best"), "a stage cannot be called `best`"),
    "part names a place": (part_called("../x_encoder"), "the name of a part should be of letters"),
    "part of another role": (part_called("decoder_x"), "is not the name of a encoder"),
    "unknown stage": (replaced("stage", "gone"), "its recipe has no stage `gone`"),
    "option of no part": (in_recipe("encoder", gone=1), "has no option `gone`"),
    "option of another kind": (in_recipe("encoder", dim="wide"), "`dim` should be a whole number"),
    "option out of bounds": (in_recipe("quantizer", decay=1.0), "`decay` should be less than 1"),
    "not finite": (in_recipe("quantizer", decay=float("nan")), "`decay` should be"),
    "file elsewhere": (lambda a: a["resolved"].update(file="../../y.toml"), "should be a name alone"),
    "knob that is a method": (replaced("knobs", {"quantizer.forward": 1}), "not a knob of its parts"),
    "knob that is the class": (replaced("knobs", {"quantizer.__class__": "x"}), "not a knob of its parts"),
    "knob of no part": (replaced("knobs", {"nothing.x": 1}), "not a knob of its parts"),
    "role of a field": (lambda a: a["data"]["fields"]["x"].update(role="code"), "the unknown role `code`"),
    "shape of a field": (lambda a: a["data"]["fields"]["x"].update(shape=[1, 2**40]), "the shape"),
    "no channels": (lambda a: a["data"]["fields"]["x"].update(shape=[]), "its parts cannot be built"),
    "no recipe": (lambda a: a.pop("resolved"), "it has no `resolved`"),
    "text for a table": (replaced("quantizer", "x"), "its `quantizer` is not JSON"),
    "list for a number": (lambda a: a["quantizer"].update(sizes=[[8], 8]), "`quantizer.sizes[0]` should be a whole"),
    "deep": (replaced("metrics", "[" * 5000), "its `metrics` is not JSON"),
    "many digits": (replaced("step", "9" * 5000), "its `step` is not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_checkpoint_says_is_checked(run: Path, tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    path = changed(run, tmp_path / "bad.safetensors", metadata=change)
    with pytest.raises(VqtoolError) as caught:
        from_checkpoint(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_stage_that_is_called_like_a_number_stays_a_name(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace('name = "tokenizer"', 'name = "1e3"'))
    made = session(recipe, tmp_path / "run", ["stage.1e3.steps=2"])
    assert made.train() == 0
    assert from_checkpoint(tmp_path / "run" / "1e3.safetensors")[1].metadata["stage"] == "1e3"


def test_what_a_plugin_finds_missing_is_a_fault_of_the_file(run: Path) -> None:
    _, read = from_checkpoint(run / "tokenizer.safetensors")
    spec = DataSpec.from_json(read.metadata["data"])
    assert spec.metadata.get("season") is None
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(VqtoolError, match="have no `season`"):
        spec.metadata["season"]


@pytest.mark.parametrize("options", [{"levels": 10**6}, {"levels": 10**9}, {"codebook_size": 10**9},
                                     {"codebook_size": 2**24}], ids=str)  # fmt: skip
def test_options_that_ask_for_more_than_the_file_holds_are_refused_at_once(
    run: Path, tmp_path: Path, options: dict[str, int]
) -> None:
    path = changed(run, tmp_path / "bomb.safetensors", metadata=in_recipe("quantizer", **options))
    began = time.process_time()
    with pytest.raises(VqtoolError, match=r"more memory than the file holds|should be at most"):
        from_checkpoint(path)
    assert time.process_time() - began < 2


def test_sizes_that_are_asked_for() -> None:
    ones = torch.ones(3, 4)
    assert size_asked("zeros", (2, 3), {}) == 6
    assert size_asked("empty", ((4, 5),), {"dtype": torch.float32}) == 20
    assert size_asked("new_zeros", (ones, 7, 2), {}) == 14
    assert size_asked("randint", (10**9, (2, 2)), {}) == 4
    assert size_asked("eye", (5,), {}) == 25
    assert size_asked("arange", (10, 90), {}) == 90
    assert size_asked("repeat", (ones, 2, 10), {}) == 240
    assert size_asked("add", (ones, ones), {}) == 0


def spoiled(value: float) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[CODES] = tensors[CODES].clone()
        tensors[CODES][0, :2] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_whatever_computes(run: Path, tmp_path: Path, value: float) -> None:
    damaged = changed(run, tmp_path / "damaged.safetensors", tensors=spoiled(value))
    data, out = run.parent / "signals.npz", tmp_path / "out"
    assert within("encode", run / "tokenizer.safetensors", data, "--out", tmp_path / "c.st").returncode == 0
    message = f"2 of the 64 values of `{CODES}` are NaN or infinite"
    for words in (("encode", damaged, data, "--out", out), ("decode", damaged, tmp_path / "c.st", "--out", out),
                  ("codes", damaged), ("export", damaged, "--to", "pt2"), ("improve", damaged),
                  ("train", run.parent / "tiny.toml", "-o", out, "--from", damaged)):  # fmt: skip
        done = within(*words)
        assert (done.returncode, message in done.stderr) == (1, True), (words, done.stderr)
    done = within("evaluate", damaged, "--data", data)
    assert (done.returncode, message in done.stderr) == (0, True)
    (finding,) = [f for f in json.loads(within("diagnose", damaged, "--json").stdout)["findings"] if f["id"] == "nan"]
    assert finding["severity"] == "fail"


def test_a_weight_of_another_part_fails_the_diagnosis_as_well(run: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["parts.encoder.end.bias"] = torch.full_like(tensors["parts.encoder.end.bias"], float("inf"))

    damaged = changed(run, tmp_path / "damaged.safetensors", tensors=change)
    assert report_of(damaged).not_finite == {"parts.encoder.end.bias": 8}
    assert within("diagnose", damaged, "--strict").returncode == 3
    assert report_of(run / "tokenizer.safetensors").not_finite == {}


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop(CODES), f"it has no tensor `{CODES}`"),
    (lambda t: t.update({CODES: t[CODES].half()}), f"its tensor `{CODES}` is F16[8, 8], not F32[8, 8]"),
    (lambda t: t.update({CODES: t[CODES][:4]}), f"its tensor `{CODES}` is F32[4, 8], not F32[8, 8]"),
    (lambda t: t.update({"vectors.0": t["vectors.0"][:4].clone()}), "`vectors.0` does not fit its codebooks"),
    (lambda t: t.update({"usage.0.counts": t["usage.0.counts"] - 10**6}), "`usage.0.counts` should hold counts"),
], ids=["missing", "dtype", "shape", "vectors", "counts"])  # fmt: skip
def test_every_command_says_the_same_of_tensors_that_do_not_fit(
    run: Path, tmp_path: Path, change: Change, message: str
) -> None:
    damaged = changed(run, tmp_path / "damaged.safetensors", tensors=change)
    of_parts = CODES in message
    for command in ("diagnose", "evaluate", "show") if of_parts else ("diagnose",):
        done = within(command, damaged)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr


def test_tensors_of_an_older_checkpoint_are_held_against_the_recipe(run: Path, tmp_path: Path) -> None:
    """Without the list of tensors in its metadata."""
    for change, message in ((lambda t: t.pop(CODES), "it has no quantizer.levels.0.codebook.codes"),
                         (lambda t: t.update({CODES: t[CODES].half()}), "(float16, not float32)")):  # fmt: skip
        damaged = changed(run, tmp_path / "damaged.safetensors", metadata=lambda a: a.pop("layout"), tensors=change)
        with pytest.raises(VqtoolError) as caught:
            from_checkpoint(damaged)
        assert message in caught.value.message


STATES: dict[str, tuple[Change | None, Change | None, str]] = {
    "steps": (lambda a: a["progress"].update(step=10**6), None, "its `progress.step` is 1000000"),
    "progress": (lambda a: a["progress"].pop("best"), None, "its `progress` has no `best`"),
    "groups": (lambda a: a["param_groups"][0]["params"].pop(), None, "its `param_groups` do not fit"),
    "stage": (replaced("stage", "../../x"), None, "there is no stage called `../../x`"),
    "done": (replaced("done", 3), None, "its `done` should be a list"),
    "optimizer": (
        None,
        lambda t: t.update({"optimizer.99.step": torch.zeros(())}),
        "`optimizer.main.99.step` does not fit",
    ),
    "other": (None, lambda t: t.update({"optimizer.x.0.step": torch.zeros(())}), "`optimizer.x.0.step` is of an"),
    "slot": (None, lambda t: t.pop("optimizer.main.0.exp_avg"), "its `optimizer.main.0` has no exp_avg"),
    "shape": (
        None,
        lambda t: t.update({"optimizer.main.0.exp_avg": torch.zeros(1)}),
        "`optimizer.main.0.exp_avg` does not fit",
    ),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped within its first stage."""
    from vqtool.training import loop

    folder = tmp_path_factory.mktemp("stopped")
    made = session(write_recipe(folder), folder / "run", ["stage.tokenizer.steps=4", "train.valid_every=2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.StageLoop, "_ends_early", lambda self: self.progress.step == 2 and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.train()
    made.run_dir.close()
    return folder / "run"


@pytest.mark.parametrize("name", STATES)
def test_a_state_to_resume_is_checked(stopped: Path, tmp_path: Path, name: str) -> None:
    metadata, tensors, message = STATES[name]
    copied = stopped.parent / f"copy-{name}"
    shutil.copytree(stopped, copied)
    changed(stopped, copied / "resume.safetensors", metadata=metadata, tensors=tensors, name="resume")
    done = within("resume", copied)
    assert message in done.stderr
    assert done.returncode in (1, 2)


def test_a_resumed_run_writes_into_its_folder_alone(stopped: Path) -> None:
    copied = stopped.parent / "outer" / "inner" / "run"
    shutil.copytree(stopped, copied)
    resolved = json.loads((copied / "resolved.json").read_text())
    resolved["stages"][0]["name"] = "../../x"
    (copied / "resolved.json").write_text(json.dumps(resolved))
    changed(stopped, copied / "resume.safetensors", metadata=replaced("stage", "../../x"), name="resume")
    before = sorted(p for p in stopped.parent.rglob("*") if copied not in p.parents)
    done = within("resume", copied)
    assert done.returncode != 0
    assert "a stage cannot be called `../../x`" in done.stderr
    assert before == sorted(p for p in stopped.parent.rglob("*") if copied not in p.parents)


@pytest.mark.parametrize(("file", "content", "message"), [
    ("resolved.json", "{", "`{path}` is damaged: it is not JSON"),
    ("resolved.json", "[" * 20_000, "`{path}` is damaged: it is not JSON"),
    ("resolved.json", '{"title": "x"}', "`{path}` is damaged: it has no `seed`"),
    ("summary.json", '{"splits": 3}', "`{path}` is damaged: its `splits` should be a table"),
    ("environment.json", '{"plugins": [1]}', "`{path}` is damaged: its `plugins` should be a table"),
    ("metrics.jsonl", '{"step": "one"}\n', "`{path}` is damaged: in line 1, its `step` should be a whole number"),
])  # fmt: skip
def test_every_damaged_file_of_a_run_has_one_sentence(
    run: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / file
    path.write_text(content)
    done = within("show", tmp_path / "run")
    assert (done.returncode, message.format(path=path) in done.stderr) == (1, True), done.stderr
    if file == "resolved.json":
        for command in ("diagnose", "evaluate"):
            assert "is damaged" in within(command, tmp_path / "run").stderr


def foreign(codes: torch.Tensor, value: int) -> torch.Tensor:
    codes = codes.clone()
    codes[0, 0, 0] = value
    return codes


@pytest.mark.parametrize(("metadata", "tensors", "message"), [
    (None, lambda t: t.update(codes=foreign(t["codes"], 8)), "code 8 is not one of `level0`, whose codes are 0 to 7"),
    (None, lambda t: t.update(codes=foreign(t["codes"], -2)), "code -2 is not one of `level0`"),
    (None, lambda t: t.update(codes=t["codes"].float()), "codes should be whole numbers, not float32"),
    (None, lambda t: t.update(codes=t["codes"].repeat(1, 1, 2)), "the codes have 4 columns"),
    (None, lambda t: t.update(codes=t["codes"][0]), "its codes have the shape (4, 2)"),
    (None, lambda t: t.update(sent=t["sent"][:5]), "its tensor `sent` has the shape"),
    (None, lambda t: t.pop("sent"), "it has no tensor `sent`"),
    (lambda a: a.pop("about"), None, "it has no `about`"),
    (replaced("kind", "x"), None, "holds no codes"),
])  # fmt: skip
def test_codes_of_a_file_are_checked(
    run: Path, tmp_path: Path, metadata: Change | None, tensors: Change | None, message: str
) -> None:
    model = run / "tokenizer.safetensors"
    assert within("encode", model, run.parent / "signals.npz", "--out", tmp_path / "c.safetensors").returncode == 0
    damaged = changed(tmp_path, tmp_path / "damaged.st", metadata=metadata, tensors=tensors, name="c")
    done = within("decode", model, damaged, "--out", tmp_path / "out.npz")
    assert message in done.stderr
    assert str(damaged) in done.stderr
    assert not (tmp_path / "out.npz").exists()
