"""What the code of a page takes for granted: the reader's own model, data and files. Run before the page's blocks."""

OWN_MODEL = """
import torch
from torch import nn

import vqtool

torch.manual_seed(0)
self = model = nn.Module()
optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
"""

QUANTIZER = '''
class VectorQuantizer(nn.Module):
    """The loss of many a repository: the commitment weighs four times as much as the codes' own error."""

    def __init__(self, dim=64, codes=128):
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)

    def forward(self, z):
        table = self.embedding.weight
        codes = torch.cdist(z, table[None]).argmin(-1)
        hard = table[codes]
        loss = 0.25 * (hard - z.detach()).square().mean() + (hard.detach() - z).square().mean()
        return z + (hard - z).detach(), codes, loss
'''

SETUPS = {
    "codec": '''
import shutil
from pathlib import Path

shutil.copy(min(Path("recipes/data/telugu_cv_16k").glob("*.flac")), "talk.flac")
''',
    "README": OWN_MODEL + "latents = torch.randn(2, 128, 50)\n",
    "index": OWN_MODEL + "latents = torch.randn(2, 50, 64)\n",
    "library": OWN_MODEL + '''
latents, features = torch.randn(2, 128, 50), torch.randn(2, 256, 8, 8)
x, loader = torch.randn(1, 1, 16_000), [latents] * 3
MyQuantizer = vqtool.quantizers.VQ
''',
    "diagnosis": OWN_MODEL + '''
import numpy

model.vq = vqtool.quantizers.Residual(8, levels=4, of=vqtool.quantizers.VQ)
codes = model.vq(torch.randn(64, 50, 8)).codes
''',
    "verify": OWN_MODEL + QUANTIZER + f'''
from pathlib import Path

Path("my_model.py").write_text("import torch\\nfrom torch import nn\\n" + {QUANTIZER!r})
MyQuantizer = VectorQuantizer


class Own(vqtool.quantizers.VQ):
    """A quantizer that is moved by a method of its own."""

    def forward(self, z, mask=None):
        result = super().forward(z, mask)
        if self.training:
            self.stats = result.stats
        return result.z, result.codes, result.loss

    def update_ema(self):
        self.update(self.stats)


model.quantizer, latents = Own(16, codebook_size=32), torch.randn(8, 40, 16)
model.quantizer.initialise(latents)
''',
    "forecast": '''
import pandas

import vqtool

times = pandas.date_range("2020-01-01", periods=120, freq="MS")
pandas.DataFrame({"ds": times, "sold": range(120)}).to_csv("mine.csv", index=False)
''',
    "semcom": '''
import torch

x, my_radio = torch.rand(2, 1, 28, 28), lambda symbols: symbols
''',
    "images": "",
    "writing-a-plugin": """
import re
from pathlib import Path

page = (Path("recipes").resolve().parent / "docs/writing-a-plugin.md").read_text(encoding="utf-8")
Path("bottle.py").write_text(re.search(r"```python\\n(from typing.*?)```", page, re.S)[1], encoding="utf-8")
""",
}  # fmt: skip
