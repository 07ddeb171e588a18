"""`vqtool bench`: speed and memory beside other libraries, alternating in one process."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from vqtool.bench import CASES
from vqtool.console import out, table_text
from vqtool.errors import VqtoolError
from vqtool.suggest import did_you_mean

SECONDS = 25.0  # per row of the table, about


def run(*, case: str | None, kinds: list[str], device: str) -> int:
    """Measure one case, compare kinds of quantizer, or list the cases."""
    if case is None:
        out.result_table("", ["case", "what it measures"], list(CASES.items()), gap=False)
        out.document({"cases": CASES})
        return 0
    if case not in CASES:
        raise VqtoolError(
            f"there is no case `{case}`", hint=did_you_mean(case, CASES, otherwise="vqtool bench quantizers")
        )
    if kinds and case != "quantizers":
        raise VqtoolError(f"`{kinds[0]}`: only quantizers can be compared by kind", hint=f"vqtool bench {case}")
    from vqtool.bench.measure import machine
    from vqtool.training.runtime import pick_device

    if kinds:
        from vqtool.bench import race

        for kind in kinds:  # an unknown one is an error before anything is measured
            race.racer(kind)
        measure = partial(race.rows, kinds=kinds)
    else:
        measure = importlib.import_module(f"vqtool.bench.{case}").rows
    where = pick_device(device)
    about = machine(where)
    if about["load_average"] is not None and about["load_average"] > about["threads"]:
        out.warn(f"this machine is busy: load average {about['load_average']}")
    rows = []
    for row in measure(where, SECONDS):
        rows.append(row)
        out.print(shown(row))
    out.document({"machine": about, "cases": rows})
    return 0


def shown(row: dict[str, Any]) -> str:
    """One case for people."""
    lines = [[row.get("first", "ours"), f"{row['ours_ms']:.1f}", mib(row.get("ours_mib")), "1.0"]]
    lines += [[n, f"{p['ms']:.1f}", mib(p.get("mib")), f"{p['ratio']:.2f}"] for n, p in row["peers"].items()]
    for name, key in (("bare product", "floor_ms"), ("bare product into a buffer", "floor_out_ms")):
        if key in row:
            lines.append([name, f"{row[key]:.1f}", "", f"{row[key] / row['ours_ms']:.2f}"])
    return table_text(f"{row['case']}, {row['mode']}", ["", "ms", "MiB", "to ours"], lines, out.result_stream)


def mib(value: float | None) -> str:
    """Memory in whole MiB, where it was measured."""
    return "" if value is None else f"{value:.0f}"
