"""The findings about a link: what shows them, what they say, and their thresholds in a recipe."""

from __future__ import annotations

import io

import pytest

from tests.diagnosis.reports import findings, report, text
from tests.diagnosis.test_watch import watch
from vqtool.diagnosis import terminal
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.view import View
from vqtool.errors import VqtoolError
from vqtool.recipe.recipe import parse
from vqtool.recipe.schema import recipe_schema

UNHEALTHY = {"transmit-power": {"tx_power": 0.33}, "llr-scale": {"llr.ratio": 0.5}}


@pytest.mark.parametrize("name", UNHEALTHY)
def test_each_is_found_by_its_figure_alone(name: str) -> None:
    made = report(measures=UNHEALTHY[name])
    assert set(findings(made)) == {name}
    one = findings(made)[name]
    assert one.severity == "fail"
    assert one.source
    assert not diagnosed(made).healthy


def test_a_sound_link_is_healthy() -> None:
    made = diagnosed(report(measures={"tx_power": 1.0, "llr.ratio": 1.02}))
    assert made.healthy
    assert {f.id for f in made.findings if f.severity == "ok"} >= UNHEALTHY.keys()


def test_no_power_at_all_is_a_failure() -> None:
    assert findings(report(measures={"tx_power": 0.0}))["transmit-power"].figure == 200


def test_low_power_of_a_soft_quantizer_is_fixed_by_hardening() -> None:
    made = report(measures={"tx_power": 0.33}, recipe=text('kind = "soft"'), knobs=["hard"])
    (fix, *_) = findings(made)["transmit-power"].fix
    assert "quantizer.hard" in fix


def test_a_recipe_sets_their_thresholds() -> None:
    recipe = text(more="[diagnose]\nllr_scale_fail = 0.2\ntransmit_power_warn = 9.0\ntransmit_power_fail = 9.0\n")
    made = report(measures={"tx_power": 0.33, "llr.ratio": 0.5}, recipe=recipe)
    assert {name: f.severity for name, f in findings(made).items()} == {"llr-scale": "warn"}
    assert "llr_scale_fail" in recipe_schema()["properties"]["diagnose"]["properties"]


@pytest.mark.parametrize(
    ("line", "message"), [("llr_scale_fial = 1.0", "llr_scale_fial"), ('llr_scale_fail = "low"', "llr_scale_fail")]
)
def test_thresholds_in_a_recipe_are_checked(line: str, message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        parse(text(more=f"[diagnose]\n{line}\n"))


def test_training_stops_for_a_finding_of_the_link() -> None:
    made = watch(10, "fail")
    assert made.look(20, {}, {"tx_power": 0.2}) is None  # seen once
    finding = made.look(30, {}, {"tx_power": 0.2})
    assert finding is not None
    assert finding.id == "transmit-power"


def test_the_terminal_shows_both_figures() -> None:
    shown = terminal.text(View(diagnosed(report(measures={"tx_power": 0.98, "llr.ratio": 1.02}))), io.StringIO())
    assert "transmitted power 0.980" in shown.replace("\n", " ")
    assert "over the expected 1.020" in shown.replace("\n", " ")
