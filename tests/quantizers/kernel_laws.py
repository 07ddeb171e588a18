"""Every law of the conformance kit on the GPU kernels in Triton's interpreter, for each kind that they serve.

`python -m tests.quantizers.kernel_laws [KIND]`: minutes for each kind. A law whose kind launched no kernel is named.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

SERVED = {  # kinds whose passes, searches or sums are kernels, small
    "ema": {"codebook_size": 16},
    "residual-ema": {"codebook_size": 16, "levels": 2},
    "product-ema": {"codebook_size": 16, "groups": 2},
    "rotation": {"codebook_size": 16},
    "gradient": {"codebook_size": 16},
    "simvq": {"codebook_size": 16},
    "cosine": {"codebook_size": 16},
    "product-gumbel": {"codebook_size": 16, "groups": 2},
}


def main(kinds: list[str]) -> int:
    """How many laws are broken."""
    os.environ.update(TRITON_INTERPRET="1", VQTOOL_KERNELS="on")
    from vqtool.catalog import catalog
    from vqtool.conformance import QUANTIZER_LAWS, Subject, judge
    from vqtool.quantizers.gpu import operators, switch

    launched, runs = [], operators.runs_kernels
    operators.runs_kernels = lambda x: runs(x) and not launched.append(1)
    importlib.import_module("vqtool.quantizers.gpu.launches").BY_PRODUCT = 310
    switch.LARGE = 320  # codes of the check of a large codebook: 2 100 take long
    broken = 0
    for kind in kinds or SERVED:
        made = catalog().load("quantizer", kind)
        for law in QUANTIZER_LAWS:
            began, before = time.perf_counter(), len(launched)
            verdict = judge(law, Subject(made, options=SERVED[kind])).verdict
            broken += verdict.status == "broken"
            print(f"{kind:14} {law.id:30} {verdict.status:7} {len(launched) - before:5} launches "
                  f"{time.perf_counter() - began:6.1f} s  {verdict.note or ''}", flush=True)  # fmt: skip
        print(
            f"{kind}: the check before first use {'passed' if all(switch._trusted.values()) else 'failed'}", flush=True
        )
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
