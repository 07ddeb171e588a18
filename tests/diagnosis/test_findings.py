"""Each finding on reports made by hand: what it needs, what it is called, what explains it away, and that fixes fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.reports import findings, pasted, report, text, with_history
from vqtool.catalog import Limit, catalog
from vqtool.diagnosis import fixes
from vqtool.diagnosis.findings import EXPLAINS, diagnosed
from vqtool.diagnosis.reading import codebook
from vqtool.diagnosis.report import Finding, Report
from vqtool.recipe.recipe import parse
from vqtool.recipe.thresholds import OWN, key, keys, limit_of, limits

RNG = np.random.default_rng(0)
EVEN = np.full(32, 100)
ONE = np.array([3200] + [0] * 31)
HALF = np.where(np.arange(32) < 16, 200, 0)
RANDOM = text('kind = "ema"\nrevive_below = 0.0\nstart = "random"')
UNHEALTHY = {
    "collapse": report([ONE]),
    "dead-codes": report([HALF], recipe=RANDOM),
    "dead-level": report([EVEN, EVEN, ONE, EVEN], noun="level",
                         recipe=text('kind = "residual-ema"\nrevive_below = 0.0\nlevels = 4')),
    "duplicate-codes": report([EVEN], [np.concatenate([RNG.normal(size=(20, 4)), np.ones((12, 4))])], recipe=RANDOM),
    "frozen-codebook": report(measures={"codes.moved.codebook": 0.0, "codes.followed.codebook": 0.0},
                              recipe=text('kind = "gradient"'), terms=["codebook", "commitment"]),
    "outputs-fed": report(measures={"codes.moved.codebook": 0.02, "codes.followed.codebook": 1.0}),
    "soft-hard-gap": report(measures={"soft_hard.gap": 1.4, "hard.loss": 2.4, "soft.loss": 1.0, "soft.token_bits": 3.0},
                            recipe=text('kind = "soft"'), knobs=["hard", "temperature"],
                            terms=["commitment", "consistency"]),
    "range-drift": report(measures={"range_ratio": 0.45, "rescale": 2.2}, recipe=text(losses="l1 = 1.0")),
    "dc-offset": report(measures={"dc": -1.38}),
    "no-negatives": report(measures={"contrastive.effective_negatives": 0.0, "contrastive.accuracy": 1.0}),
    "codes-ignored": report(measures={"error.mean": 0.4, "shuffled.error.mean": 0.4}),
    "repeated-tokens": report(measures={"sequence.repeated": 0.95}),
    "not-started": report(initialised=False),
    "nan": report([EVEN], [np.full((32, 4), np.nan)]),
}  # fmt: skip


OF = 'of = { kind = "vq", codebook_size = 32, codes = "ema", revive_below = 0.0, start = "random" }'
COMPOSED = {
    "one level": report([ONE], recipe=text(f'kind = "residual"\nlevels = 1\n{OF}')),
    "half": report([HALF], recipe=text(f'kind = "residual"\nlevels = 1\n{OF}')),
}


@pytest.mark.parametrize("name", UNHEALTHY)
def test_a_disease_is_called_by_its_name_and_nothing_else(name: str) -> None:
    found = findings(UNHEALTHY[name])
    assert set(found) == {name}
    one = found[name]
    assert one.cause[0].islower() or one.cause[0] in "`0123456789"
    assert not one.cause.endswith(".")
    assert one.source
    assert not diagnosed(UNHEALTHY[name]).healthy


@pytest.mark.parametrize("name", UNHEALTHY)
def test_healthy_checks_are_reported_as_ok(name: str) -> None:
    """The same figures, but well: only "ok" is reported."""
    well = {"codes.moved.codebook": 1.0, "codes.followed.codebook": 1.0, "soft_hard.gap": 0.02, "range_ratio": 0.97,
            "dc": 0.01, "contrastive.effective_negatives": 80.0, "error.mean": 0.1,
            "shuffled.error.mean": 1.0, "sequence.repeated": 0.1}  # fmt: skip
    made = diagnosed(report([EVEN], [RNG.normal(size=(32, 4))], well))
    assert made.healthy
    assert {f.severity for f in made.findings} == {"ok"}
    known = {"frozen-codebook" if name == "outputs-fed" else name for name in UNHEALTHY}
    assert {f.id for f in made.findings} == (known | {"dimension-collapse"}) - {"dead-level", "not-started", "nan"}


@pytest.mark.parametrize("name", [*UNHEALTHY, *COMPOSED])
def test_every_fix_can_be_pasted(name: str) -> None:
    """`vqtool train RECIPE -s KEY=VALUE` takes it and it changes the recipe; commands are what the parser takes."""
    made = {**UNHEALTHY, **COMPOSED}[name]
    for finding in diagnosed(made).findings:
        pasted(made, finding)
    (one,) = findings(made).values()
    assert one.fix or name in (
        "not-started",
        "no-negatives",
        "range-drift",
        "dc-offset",
        "codes-ignored",
        "repeated-tokens",
    )


@pytest.mark.parametrize("name", COMPOSED)
def test_fixes_reach_into_what_a_quantizer_is_made_of(name: str) -> None:
    (one,) = findings(COMPOSED[name]).values()
    assert "-s quantizer.of.revive_below=0.1" in one.fix
    assert "-s quantizer.of.start=kmeans" in one.fix


CONTEXT = '[context]\nkind = "transformer"\n'
CONTRAST = (
    text('kind = "product-gumbel"\ngroups = 1', losses="info-nce = 1.0, log-perplexity = 5.0", more=CONTEXT)
    .replace('"autoencode"', '"contrast"')
    .replace('[decoder]\nkind = "conv1d"\n', "")
)


def test_even_use_is_a_finding_where_a_contrastive_task_is_pulled_to_it() -> None:
    made = report([EVEN], recipe=CONTRAST, terms=["hf", "log-perplexity"])
    one = findings(made)["too-uniform"]
    assert one.severity == "warn"
    assert "`log-perplexity`, of weight 5" in one.cause
    assert one.fix == ("-s stage.tokenizer.losses.log-perplexity=0.4",)
    pasted(made, one)
    predicted = {"contrastive.accuracy": 0.6, "contrastive.chance": 0.05, "contrastive.effective_negatives": 40.0}
    (note,) = findings(
        report([EVEN], measures=predicted, recipe=CONTRAST, terms=["log-perplexity"]), ("note",)
    ).values()
    assert note.id == "too-uniform"
    natural = np.round(3200 / np.arange(1, 33)).astype(int)
    assert findings(report([natural], recipe=CONTRAST, terms=["log-perplexity"])) == {}


def test_even_use_is_good_elsewhere() -> None:
    assert "too-uniform" not in findings(report([EVEN]), ("ok", "note", "warn", "fail"))
    alone = CONTRAST.replace(", log-perplexity = 5.0", "")
    assert "too-uniform" not in findings(report([EVEN], recipe=alone, terms=["log-perplexity"]), ("warn", "note"))


def flat(rank: int, width: int, size: int = 256) -> np.ndarray:
    """`size` code vectors in `rank` of `width` dimensions."""
    return RNG.normal(size=(size, rank)) @ RNG.normal(size=(rank, width)) + 1e-3 * RNG.normal(size=(size, width))


@pytest.mark.parametrize(("rank", "width", "ill"), [(2, 128, True), (10, 512, True), (16, 128, False), (2, 8, False)])
def test_codes_in_a_few_of_their_dimensions(rank: int, width: int, ill: bool) -> None:
    recipe = text('kind = "vq"\ncodebook_size = 256')
    found = findings(report([np.full(256, 100)], [flat(rank, width)], recipe=recipe))
    assert set(found) == ({"dimension-collapse"} if ill else set())
    if ill:
        assert f"about {rank}" in found["dimension-collapse"].cause or rank > 2
        assert found["dimension-collapse"].fix[0].startswith("-s quantizer.code_dim=")


def test_codes_that_are_few_or_meant_to_be_narrow_do_not_collapse_in_dimension() -> None:
    narrow = text('kind = "vq"\ncodebook_size = 256\ncode_dim = 4\nproject = "learned"')
    assert findings(report([np.full(256, 100)], [flat(4, 128)], recipe=narrow)) == {}
    few = RNG.normal(size=(8, 512))
    assert findings(report([np.full(8, 100)], [few])) == {}
    grid = np.concatenate([np.linspace(-1, 1, 64)[:, None], np.zeros((64, 127))], 1)
    assert findings(report([np.full(64, 100)], [grid], fixed=True)) == {}


def test_a_fixed_grid_is_not_frozen_and_hides_nothing() -> None:
    """A plugin's own grid: nothing moves it, and dead codes of another group are still found."""
    moved = {f"codes.moved.group{q}": 0.0 for q in range(2)}
    found = findings(report([EVEN, HALF], measures=moved, recipe=text('kind = "vq"'), fixed=True))
    assert set(found) == {"dead-codes"}
    assert found["dead-codes"].where == "group1"


def test_what_is_wrong_with_one_codebook_explains_nothing_of_another() -> None:
    moved = {"codes.moved.group0": 0.0, "codes.moved.group1": 1.0}
    found = findings(report([EVEN, HALF], measures=moved))
    assert {(f.id, f.where) for f in found.values()} == {("frozen-codebook", "group0"), ("dead-codes", "group1")}


def test_every_frozen_codebook_is_one_finding() -> None:
    moved = {"codes.moved.group0": 0.0, "codes.moved.group1": 0.02}
    one = findings(report([EVEN, HALF], measures=moved))
    assert set(one) == {"frozen-codebook"}
    assert one["frozen-codebook"].where == ""


def test_a_codebook_of_zeros() -> None:
    zeros = np.zeros((32, 4))
    found = findings(report([EVEN, ONE], [RNG.normal(size=(32, 4)), zeros]))
    assert {(f.id, f.where, f.severity) for f in found.values()} == {("zero-codebook", "group1", "fail")}
    assert set(findings(report([ONE], [zeros], initialised=False))) == {"not-started"}


@pytest.mark.parametrize("kind", ["gumbel", "product-gumbel", "soft", "lfq"])
def test_a_collapse_without_a_diversity_loss_names_its_weight_alone(kind: str) -> None:
    terms = {"soft": ["diversity"], "lfq": ["diversity"]}.get(kind, ["hf", "log-perplexity"])
    more = {"lfq": "bits = 5"}.get(kind, "codebook_size = 32")
    made = report([ONE], [RNG.normal(size=(32, 4))] * (kind != "lfq"), recipe=text(f'kind = "{kind}"\n{more}'),
                  terms=terms, movable=kind == "soft")  # fmt: skip
    one = findings(made)["collapse"]
    weights = [line for line in one.fix if ".losses." in line]
    assert len(weights) == len(terms)
    assert not any(line.startswith("vqtool improve") for line in one.fix)
    assert set(one.fix) - set(weights) <= {"-s quantizer.bits=1"}
    pasted(made, one)


def test_a_fix_is_quoted_for_a_shell() -> None:
    (ramp,) = [line for line in findings(UNHEALTHY["soft-hard-gap"])["soft-hard-gap"].fix if ".temperature=" in line]
    assert ramp.startswith('-s \'stage.tokenizer.schedule.quantizer.temperature={ kind = "geometric"')
    here = replace(UNHEALTHY["duplicate-codes"], source=Path("my run/a.safetensors"))
    assert "vqtool improve 'my run/a.safetensors' --merge" in findings(here)["duplicate-codes"].fix


@pytest.mark.parametrize("name", UNHEALTHY)
def test_a_model_without_a_recipe_gets_words_and_no_options(name: str) -> None:
    """A checkpoint of another library, or a loop of one's own: there is no recipe to set an option in."""
    made = replace(UNHEALTHY[name], recipe={}, source=Path("model.safetensors"))
    for finding in diagnosed(made).findings:
        for line in finding.fix:
            assert not line.startswith(("-s", "vqtool"))


def test_twins_are_found_without_counts() -> None:
    same = np.repeat(RNG.normal(size=(32, 4)), 2, 0)
    made = report([EVEN])
    book = codebook("codebook", 64, None, same, {})
    one = findings(replace(made, codebooks=(book,)))["duplicate-codes"]
    assert (one.figure, one.severity) == (1.0, "fail")
    assert "64 codes have a near-identical twin" in one.cause


def test_every_codebook_collapsed_is_one_collapse() -> None:
    found = findings(report([ONE, ONE, ONE], noun="level"))
    assert set(found) == {"collapse"}
    assert found["collapse"].where == ""
    assert "all 3 codebooks" in found["collapse"].cause


def test_a_dead_level_is_named_by_its_place_and_its_name() -> None:
    one = findings(UNHEALTHY["dead-level"])["dead-level"]
    assert one.where == "level2"
    assert "level 3 of 4" in one.cause


def test_one_frozen_level_among_moving_ones_is_found() -> None:
    moved = {"codes.moved.level0": 1.0, "codes.moved.level1": 0.0, "codes.moved.level2": 1.0}
    one = findings(report([EVEN, EVEN, EVEN], measures=moved, noun="level"))["frozen-codebook"]
    assert one.where == "level1"


def test_an_expert_that_no_window_takes_is_dead_and_balance_fixes_it() -> None:
    recipe = text('kind = "mixture-ema"\ncodebook_sizes = [32, 32, 32]', losses="mse = 1.0, balance = 0.02")
    none = np.zeros(32, dtype=int)
    made = report([EVEN, none, EVEN], noun="expert", recipe=recipe, terms=["balance"])
    found = findings(made)
    assert set(found) == {"dead-level"}
    assert found["dead-level"].where == "expert1"
    assert "expert 2 of 3" in found["dead-level"].cause
    pasted(made, found["dead-level"])
    assert found["dead-level"].fix == ("-s stage.tokenizer.losses.balance=0.3",)
    assert findings(report([EVEN, EVEN, EVEN], noun="expert", recipe=recipe)) == {}
    assert findings(report([none, none], noun="expert")) == {}


def test_several_dead_levels_are_one_finding_and_the_last_ones_can_be_left_out() -> None:
    made = report([EVEN, EVEN, ONE, ONE], noun="level", recipe=text('kind = "residual-ema"\nlevels = 4'))
    found = findings(made)
    assert set(found) == {"dead-level"}
    assert "so are `level3`" in found["dead-level"].cause
    assert "-s quantizer.levels=2" in found["dead-level"].fix


def test_dead_codes_are_judged_against_what_so_few_tokens_can_reach() -> None:
    few = np.bincount(np.random.default_rng(0).integers(1024, size=700), minlength=1024)
    made = report([few])
    assert (few == 0).mean() > 0.4
    assert findings(made) == {}
    assert "few-tokens" in findings(made, ("note",))


@pytest.mark.parametrize(("dead", "severity"), [(32, "ok"), (34, "warn"), (39, "warn"), (41, "fail")])
def test_a_third_of_dead_codes_warns_and_two_fifths_fail(dead: int, severity: str) -> None:
    made = report([np.where(np.arange(100) < dead, 0, 400)])
    found = findings(made, ("ok", "warn", "fail"))["dead-codes"]
    assert (found.figure, found.severity) == (pytest.approx(dead / 100), severity)


def test_several_codebooks_with_dead_codes_are_one_finding_that_names_them() -> None:
    found = findings(report([HALF, EVEN, np.where(np.arange(32) < 8, 400, 0)], noun="level"))
    assert set(found) == {"dead-codes"}
    assert found["dead-codes"].where == "level2"
    assert "`level0` 16" in found["dead-codes"].cause


def test_a_vague_output_has_not_drifted() -> None:
    """The best estimate of something uncertain has a small range; no factor would fit it better."""
    made = report(measures={"range_ratio": 0.45, "rescale": 1.02})
    assert findings(made) == {}
    assert "range-drift" in findings(made, ("ok",))


def test_the_end_of_the_stage_counts_where_the_kept_checkpoint_is_from_before() -> None:
    made = report(measures={"soft_hard.gap": 0.1})
    made = replace(made, metadata={**made.metadata, "validation": {"step": 10}})
    later = with_history(
        made, **{"soft_hard.gap": [0.1, 0.4, 1.5, 1.6], "hard.loss": [1.0] * 4, "soft.loss": [1.0] * 4}
    )
    one = findings(later)["soft-hard-gap"]
    assert one.figure == 1.6
    assert one.step == 30
    assert "step 40 (the checkpoint is of step 10, before)" in one.cause


def test_accuracies_of_both_paths_show_the_gap_where_the_deployed_one_is_worse() -> None:
    worse = {"accuracy.soft.6db": 0.7, "accuracy.hard.6db": 0.69, "accuracy.soft.12db": 0.8, "accuracy.hard.12db": 0.5}
    one = findings(report(measures=worse))["soft-hard-gap"]
    assert one.severity == "fail"
    assert "at 12db" in one.cause
    better = {"accuracy.soft.12db": 0.4, "accuracy.hard.12db": 0.8}
    assert findings(report(measures=better)) == {}


def test_a_table_of_someone_elses_is_not_taken_for_a_trained_map() -> None:
    """A quantizer of a plugin has a table of its own: neither our codebook that moves, nor a map of a frozen one."""
    own = report([ONE], recipe=text('kind = "gradient"'), terms=["codebook"], movable=False, mapped=False)
    one = findings(own)["collapse"]
    assert "gets no gradient" in one.cause
    assert one.fix == (fixes.KMEANS,)
    before = report([ONE], recipe=text('kind = "simvq"'), terms=["codebook"], movable=False)  # of an older version
    for mapped in before, report([ONE], recipe=text('kind = "simvq"'), terms=["codebook"], movable=False, mapped=True):
        assert "One trained map" in findings(mapped)["collapse"].cause


def test_a_hot_code_and_a_lag_are_notes() -> None:
    hot = np.array([4000] + [60] * 31)
    made = report([hot], measures={"codes.lag.codebook": 0.7})
    assert set(findings(made, ("note",))) == {"hot-code", "codebook-lags"}
    assert diagnosed(made).healthy


def test_symptoms_are_left_out_and_their_disease_is_known() -> None:
    moved = {"codes.moved.codebook": 0.0, "codes.followed.codebook": 0.0}
    assert set(findings(report([HALF], measures=moved))) == {"frozen-codebook"}
    assert set(findings(report([ONE], measures={"range_ratio": 0.01}))) == {"collapse"}
    result = {"nan", "not-started", "zero-codebook", "codebook-lags", "hot-code"} | {limit.id for limit in OWN}
    assert EXPLAINS.keys() | frozenset[str]().union(*EXPLAINS.values()) <= result


def test_findings_of_plugins_are_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Finding("odd-codes", "fail", 1.0, None, "a plugin", "all codes are odd")
    monkeypatch.setattr(catalog().hooks, "collect", lambda hook, *_, **__: [odd] if hook == "vqtool_diagnose" else [])
    made = diagnosed(report([HALF]))
    assert [f.id for f in made.findings][:2] == ["dead-codes", "odd-codes"]
    assert made.worst() == "fail"


def test_a_recipe_sets_thresholds_and_is_named_as_their_source() -> None:
    stricter = text(more="[diagnose]\ndead_codes_warn = 0.01\ndead_codes_fail = 0.02\n")
    made = report([np.where(np.arange(32) < 30, 100, 0)])
    assert findings(made) == {}
    one = findings(replace(made, recipe=parse(stricter).resolved()))["dead-codes"]
    assert (one.severity, one.threshold) == ("fail", 0.02)
    assert one.source == "the recipe's [diagnose]"
    off = text(more='[diagnose]\ndead_codes_warn = "none"\ndead_codes_fail = "none"\n')
    assert findings(report([HALF], recipe=off)) == {}


def test_limits_grade_on_their_worse_side() -> None:
    low = Limit("", "", 0.1, 0.05, "", "low")
    assert [low.grade(v)[0] for v in (0.2, 0.1, 0.05)] == ["ok", "warn", "fail"]
    high = Limit("", "", 1.0, None, "")
    assert [high.grade(v)[0] for v in (0.9, 1.0, 99.0)] == ["ok", "warn", "warn"]
    assert high.grade(0.0)[1] == 1.0
    assert set(keys()) == {key(name, s) for name in limits() for s in ("warn", "fail")}
    assert all(limit_of(name, {}) is limit for name, limit in limits().items())


def test_a_report_without_a_recipe_or_counts_is_not_a_crash() -> None:
    made = report()
    bare = Report(made.source, "nothing", 0, (), {})
    assert diagnosed(bare).healthy
    assert diagnosed(replace(made, recipe={}, metadata={})).healthy
    assert findings(replace(report([ONE]), recipe={}, metadata={}))["collapse"].severity == "fail"
