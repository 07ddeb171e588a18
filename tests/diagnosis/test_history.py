"""What the rows of metrics.jsonl show: trends, when they began, and what changed then."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.diagnosis.reports import findings, report, text, with_history
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.history import changed_at, series

SCHEDULED = text('kind = "soft"') + 'schedule."quantizer.temperature" = { kind = "linear", from = 1.0, to = 0.1 }\n'


def test_a_series_is_that_of_validation_where_there_is_enough_of_it() -> None:
    made = with_history(report(), split="train", loss=[float(i) for i in range(8)])
    assert series(made, "loss").split == "train"  # type: ignore[union-attr]
    made = with_history(made, loss=[5.0, 6.0, 7.0])
    assert series(made, "loss").values == (5, 6, 7)  # type: ignore[union-attr]
    other = with_history(report(), stage="prior", loss=[1.0, 2.0, 3.0])
    assert series(other, "loss") is None, "another stage"


def test_falling_perplexity_and_when_it_began() -> None:
    made = with_history(report(), **{"codes.perplexity": [28.0, 29.0, 27.0, 12.0, 9.0]})
    one = findings(made)["perplexity-falling"]
    assert one.figure == pytest.approx(9 / 29)
    assert one.step == 40
    steady = with_history(report(), **{"codes.perplexity": [28.0, 29.0, 27.0, 26.0]})
    assert findings(steady) == {}


def test_growing_commitment_is_a_finding_only_where_the_error_grows_with_it() -> None:
    grown = [0.1, 0.12, 0.3, 0.6, 0.9]
    bad = with_history(report(), **{"commitment": grown, "codes.snr_db": [12.0, 12.0, 9.0, 6.0, 5.0]})
    one = findings(bad)["commitment-growing"]
    assert one.figure == pytest.approx(9)
    assert one.step == 40
    scale = with_history(report(), **{"commitment": grown, "codes.snr_db": [12.0, 12.0, 12.5, 12.6, 13.0]})
    assert findings(scale) == {}, "the encoder's outputs grew, and the codes with them"
    past = with_history(report(), **{"commitment": [0.1, 0.9, 0.4, 0.2], "codes.snr_db": [9.0, 3.0, 4.0, 5.0]})
    assert findings(past) == {}, "it fell again"


def test_a_loss_that_never_fell_is_stuck_where_the_output_is_no_better_than_a_constant() -> None:
    flat = [1.0] * 12
    bad = with_history(report(measures={"output.snr_db": -0.2}), split="train", loss=flat)
    assert findings(bad)["loss-stuck"].severity == "fail"
    good = with_history(report(measures={"output.snr_db": 14.0}), split="train", loss=flat)
    assert findings(good) == {}, "as good as it can be from the start"
    falling = with_history(
        report(measures={"output.snr_db": 0.5}), split="train", loss=[2.0 - i / 10 for i in range(12)]
    )
    assert findings(falling) == {}


def test_a_loss_that_is_not_a_number_says_where_it_became_so() -> None:
    made = with_history(report(), split="train", loss=[1.0, 0.9, math.nan], mse=[1.0, 0.9, math.nan])
    one = findings(made)["nan"]
    assert one.step == 30
    assert "`loss`, `mse`" in one.cause
    assert "`tokenizer`" in one.cause


def test_what_changed_when_it_began() -> None:
    knob = "quantizer.temperature"
    made = report(measures={"soft_hard.gap": 2.0}, recipe=SCHEDULED)
    made = with_history(made, split="train", loss=[1.0] * 4, **{knob: [1.0, 1.0, 0.2, 0.2]})
    made = with_history(made, **{"soft_hard.gap": [0.0, 0.1, 2.0, 2.0]})
    one = findings(made)["soft-hard-gap"]
    assert one.step == 30
    assert one.changed == "`quantizer.temperature` went from 1 to 0.2"
    assert changed_at(made, "tokenizer", 10) == "stage `tokenizer` had just begun"
    later = with_history(report(), split="valid", loss=[1.0] * 4)
    later = replace(later, history=[*later.history, {"stage": "tokenizer", "split": "train", "step": 25, "loss": 1.0}])
    assert changed_at(later, "tokenizer", 40) == "", "three validations were fine before"
    assert changed_at(made, "elsewhere", 10) == ""


RAMP = [1.0, 0.8, 0.6, 0.4, 0.2]


@pytest.mark.parametrize(
    ("knob", "figure", "blamed"),
    [
        ([1.0, 1.0, 1.0, 0.1, 0.1], [0.0, 0.0, 0.0, 2.0, 2.0], True),  # both jump
        (RAMP, [0.0, 0.0, 0.0, 2.0, 2.0], False),  # it moved all the time, and nothing happened until then
        ([1.0, 1.0, 1.0, 0.1, 0.1], [0.0, 0.3, 0.45, 0.6, 2.0], False),  # the figure crept over its threshold
        ([1.0, 1.0, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0, 2.0], False),  # it jumped long before
        ([1.0, 0.95, 0.9, 0.3, 0.1], [0.0, 0.0, 0.0, 2.0, 2.0], True),  # a ramp that fell far more there
    ],
)
def test_a_schedule_is_blamed_only_where_the_figure_turned_with_it(
    knob: list[float], figure: list[float], blamed: bool
) -> None:
    made = report(measures={"soft_hard.gap": 2.0}, recipe=SCHEDULED)
    made = with_history(made, split="train", loss=[1.0] * 5, **{"quantizer.temperature": knob})
    made = with_history(made, **{"soft_hard.gap": figure})
    one = findings(made)["soft-hard-gap"]
    assert one.step is not None
    assert ("temperature" in one.changed) == blamed


def test_a_knob_that_jumped_between_two_validations_is_found() -> None:
    made = report(measures={"soft_hard.gap": 2.0}, recipe=SCHEDULED)
    made = with_history(made, split="train", loss=[1.0] * 6, **{"quantizer.temperature": [1.0] * 3 + [0.1] * 3})
    made = replace(made, history=[*made.history, *(
        {"stage": "tokenizer", "split": "valid", "step": step, "soft_hard.gap": gap}
        for step, gap in ((10, 0.0), (30, 0.0), (60, 2.0))
    )])  # fmt: skip
    assert findings(made)["soft-hard-gap"].changed == "`quantizer.temperature` went from 1 to 0.1"


def test_what_is_bad_from_the_start_is_reported_so() -> None:
    made = with_history(report(measures={"range_ratio": 0.45}), range_ratio=[0.4, 0.45, 0.45])
    one = findings(made)["range-drift"]
    assert one.step == 10
    assert one.changed == "from the first valid row on"


def test_the_range_that_left_one_later() -> None:
    made = with_history(
        report(measures={"range_ratio": 1.0}), range_ratio=[1.0, 0.95, 0.5, 0.4], rescale=[1, 1, 2.0, 2.5]
    )
    one = findings(made)["range-drift"]
    assert one.step == 30
    assert one.figure == pytest.approx(0.4)
    assert diagnosed(made).findings[0] == one
