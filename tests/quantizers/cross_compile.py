"""Compiles every launch for GPUs that are not there, as JSON.

`python -m tests.quantizers.cross_compile 90 64 1 1 704 304`: the numbers are the GPU's generation, the
features, levels and groups, and how many tokens and codes there are.

The launches run as they are, with tensors on the CPU; instead of starting, a kernel is compiled by Triton and by the
assembler that comes with it, which says how many registers it takes and how many bytes do not fit into them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vqtool.quantizers.gpu import choice, codes, kernels, launches, switch, wide

ASSEMBLER = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas-blackwell"  # the other one refuses newer code
TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip
PARTS = {  # of other kernels
    "tokens", "finite", "countable", "store_counts", "code_rows", "farthest", "nearer", "lowest", "nearest",
    "nearest_wide", "halves", "certified", "mixed", "given",
    "moved", "multipliers", "content", "gumbel", "log_sum",
}  # fmt: skip
OPTIONS = {"num_warps", "num_stages", "maxnreg"}


class Compiled:
    """A kernel that is compiled where it would start."""

    def __init__(self, kernel, capability, found):
        self.kernel, self.capability, self.found = kernel, capability, found

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, **given):
        names = self.kernel.arg_names
        options = {name: given.pop(name) for name in OPTIONS & given.keys()}
        arguments = dict(zip(names, args, strict=False)) | given
        kinds, fixed, attributes = {}, {}, {}
        for place, name in enumerate(names):
            value = arguments[name]
            if isinstance(value, torch.Tensor):
                kinds[name], attributes[place,] = TYPES[value.dtype], [["tt.divisibility", 16]]
            elif name in given or (isinstance(value, int) and value == 1):  # Triton builds a one in
                kinds[name], fixed[place,] = "constexpr", value
            else:
                kinds[name] = "fp32" if isinstance(value, float) else "i32"
                if value % 16 == 0:
                    attributes[place,] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self.kernel, signature=kinds, constexprs=fixed, attrs=attributes)
        made = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)
        with tempfile.TemporaryDirectory() as folder:
            code = Path(folder) / "kernel.ptx"
            code.write_text(made.asm["ptx"])
            arch = f"sm_{self.capability}" + ("a" if self.capability >= 90 else "")
            command = [str(ASSEMBLER), "-v", f"-arch={arch}", str(code), "-o", str(code) + ".cubin"]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
        text = said.stdout + said.stderr
        self.found.append({
            "kernel": self.kernel.__name__,
            "registers": int(re.search(r"Used (\d+) registers", text)[1]),
            "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", text))),
            "shared": made.metadata.shared,
            "products": sorted(set(re.findall(r"wgmma\.mma_async|mma\.sync", made.asm["ptx"]))),
            "atomics": len(re.findall(r"\b(?:atom|red)\.", made.asm["ptx"])),
        })  # fmt: skip


def compiled(capability, dim, levels, groups, tokens, size):
    found = []
    for room in (kernels, wide, codes, choice):
        for name, kernel in list(vars(room).items()):
            if isinstance(kernel, triton.JITFunction) and name not in PARTS:
                setattr(room, name, Compiled(kernel, capability, found))
    fast = launches.fast
    launches.fast = lambda x, dim: min(1, fast(x, dim))  # not emulated
    launches.capability = lambda x: divmod(capability, 10)
    torch.searchsorted = lambda sorted_codes, *_: sorted_codes
    x, tables = torch.randn(tokens, groups * dim), torch.randn(groups * levels, size, dim)
    torch.Tensor.topk = lambda keys, many, axis, **_: torch.return_types.topk(
        (keys[:, :many], torch.zeros(len(keys), many, dtype=torch.long))
    )
    mask = torch.ones(tokens, dtype=torch.bool)
    for trial in switch.TRIALS.values():
        trial(launches, x, mask, tables, torch.randn_like(x), torch.tensor(0.5), groups)
    return found


if __name__ == "__main__":
    print(json.dumps(compiled(*map(int, sys.argv[1:]))))
