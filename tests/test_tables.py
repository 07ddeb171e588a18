"""Tables of figures: what they hold, and in what order."""

from __future__ import annotations

from vqtool.tables import split_tables


def test_figures_that_only_a_baseline_has_are_rows_too() -> None:
    scores = {"model": {"snr": 3.0, "bits": None}, "baselines": {"a b=1": {"own": 2.0, "snr": 1.0}, "c": {}}}
    (table,) = split_tables({"test": scores})
    rows = [["snr", "3", "1", ""], ["bits", "", "", ""], ["own", "", "2", ""]]
    assert table == ("held-out: test", ["metric", "model", "a b=1", "c"], rows)
