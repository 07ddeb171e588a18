"""Writes the pages of docs/ that are made from the code: `python docs/make.py`; with --check it only compares."""

from __future__ import annotations

import inspect
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
NOTE = "<!-- made by docs/make.py from the code; change it there -->\n"
os.environ["COLUMNS"] = "100"  # the width of help texts

ROLES = {
    "data": "what is read: named fields and splits",
    "norm": "normalisation, and side information that a decoder needs",
    "conditioner": "what is known about a window besides its signal",
    "encoder": "signals to latents",
    "quantizer": "latents to codes",
    "estimator": "how the gradient passes the choice of a code",
    "channel": "what happens to codes on their way",
    "decoder": "latents to signals",
    "context": "lets every token see the others",
    "classifier": "class scores from latents",
    "discriminator": "what a decoder learns to convince, while training",
    "regressor": "predicts the side information of a norm",
    "prior": "a distribution over codes",
    "task": "what a stage does",
    "loss": "what a stage makes small",
    "metric": "what is measured on held-out rows",
    "baseline": "plain baselines, measured beside the model",
    "schedule": "how a knob moves over a stage",
}


def cli() -> str:
    """Every command's help, as typed."""
    from typer.testing import CliRunner

    from vqtool.cli import app

    runner = CliRunner()
    names = [info.name for info in app.registered_commands if info.name]
    pages = [f"# Commands\n\n{NOTE}"]
    for name in names:
        text = runner.invoke(app, [name, "--help"], prog_name="vqtool").output
        pages.append(f"## vqtool {name}\n\n```\n{trimmed(text)}\n```\n")
    return "\n".join(pages)


def trimmed(text: str) -> str:
    """Without spaces at the ends of lines and empty lines around."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def parts() -> str:
    """Every component with its options, by role."""
    import vqtool
    from vqtool.catalog import catalog
    from vqtool.recipe.options import options_of, toml_value

    found, own = catalog(), f"vqtool {vqtool.__version__}"  # not what else is installed here
    about = "What a recipe can name, by role, with the type and default of options, as `vqtool plugins ROLE` shows."
    lines = [f"# Parts\n\n{NOTE}\n{about}\n"]
    for role in found.roles:
        kinds = [c for c in found.components if c.role == role and found.provider(c) == own]
        if not kinds:
            continue
        lines.append(f"\n## {role}: {ROLES.get(role, '')}\n")
        for component in kinds:
            cls = found.load(role, component.name)
            lines.append(f"### {role} `{component.name}`\n\n{quoted(inspect.getdoc(cls) or component.summary)}\n")
            options = options_of(cls).documented()
            if options:
                for o in options:
                    default = "required" if o.required else f"`{toml_value(o.default)}`"
                    lines.append(item(f"`{o.name}` ({o.type}; {default}): {o.doc}"))
                lines.append("")
            lines.extend(f"{title}: {', '.join(f'`{n}`' for n in sorted(names))}\n" for title, names in lists(cls))
    return "\n".join(lines)


def lists(cls: type) -> Iterator[tuple[str, frozenset[str]]]:
    """What a component declares beside its options."""
    for title in ("terms", "knobs", "uses", "provides"):
        names = getattr(cls, title, None)
        if isinstance(names, frozenset) and names:
            yield title.capitalize(), names


def item(text: str) -> str:
    """An item of a list, in lines of the pages' length."""
    lines = textwrap.wrap(f"* {text}", 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def quoted(text: str) -> str:
    """A docstring as Markdown: its own indentation would read as code."""
    return "\n".join(line.strip() for line in text.splitlines())


def laws() -> str:
    """Every law: what it says, what breaks, how to fix it, and the source."""
    from vqtool.conformance import FOREIGN_LAWS, PRIOR_LAWS, QUANTIZER_LAWS

    outside = {law.id for law in FOREIGN_LAWS}
    lines = [f"# Laws\n\n{NOTE}\n" + LAWS_INTRO, "# Laws of quantizers\n"]
    for law in QUANTIZER_LAWS:
        lines += [as_text(law), f"* Checked on any `nn.Module`: {'yes' if law.id in outside else 'no'}.\n"]
    lines.append("# Laws of other modules\n")
    inside = {law.id for law in QUANTIZER_LAWS}
    lines += [as_text(law) + "\n" for law in FOREIGN_LAWS if law.id not in inside]
    lines.append("# Laws of priors\n")
    for law in PRIOR_LAWS:
        lines.append(as_text(law) + "\n")
    return "\n".join(lines)


def as_text(law: Any) -> str:
    """A law in words."""
    words = f"* **Broken:** {law.harm}.\n* **Fix:** {law.fix}.\n* **Source:** {law.source.rstrip('.')}."
    return f"## `{law.id}`\n\n{sentence(law.meaning)}\n\n* **Grade:** {law.grade}.\n{words}"


LAWS_INTRO = """\
`vqtool verify quantizer KIND` and `vqtool verify prior KIND` check a part of vqtool or of a plugin against all of its
laws; `vqtool verify FILE.py:CLASS` does the same for a class in a file, and checks any `torch.nn.Module` against those
of quantizers that can be seen from outside; [verify.md](verify.md) shows how. In a plugin's tests:

```python
from vqtool.conformance import QUANTIZER_LAWS, Subject, require


@pytest.mark.parametrize("law", QUANTIZER_LAWS, ids=lambda law: law.id)
def test_law(law):
    require(law, Subject(MyQuantizer))
```

and the same with `PRIOR_LAWS` and `PriorSubject(MyPrior)`.
"""


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + "."


def hooks() -> str:
    """Every hook with its arguments."""
    from vqtool.catalog import hookspecs

    lines = [f"# Hooks\n\n{NOTE}\nWhat every installed plugin may answer to; `docs/writing-a-plugin.md` shows how.\n"]
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("vqtool_"):
            arguments = ", ".join(inspect.signature(function).parameters)
            lines.append(f"## `{name}({arguments})`\n\n{inspect.getdoc(function)}\n")
    return "\n".join(lines)


OTHER_FINDINGS = {  # those that are no threshold's: what they say
    "not-started": "**fail**: the codebooks hold no codes yet; of a model that vqtool did not train a note",
    "nan": "**fail**: a code, a loss or a metric is not a number",
    "zero-codebook": "**fail**: every code of a codebook is zero",
    "few-tokens": "note: so few tokens were counted that use and perplexity are understated",
    "no-counts": "note: the file of another library's model does not say how its codes are used",
    "no-codebook": "note: it has a fixed grid (FSQ, LFQ) and no codebook",
    "sizes-unknown": "note: codes were given, and not how many there are of each codebook",
    "hot-code": "note: one code has more than half of all tokens",
    "codebook-lags": "note: most of the error is there because the codes are not at the mean of their inputs",
}


def findings() -> str:
    """Every finding of `vqtool diagnose` with its thresholds."""
    from vqtool.recipe.thresholds import key, limits

    lines = [f"# Findings of vqtool diagnose\n\n{NOTE}\n{FINDINGS_INTRO}"]
    for name, limit in limits().items():
        sign = "at most" if limit.worse == "low" else "at least"
        given = {"warns": limit.warn, "fails": limit.fail}
        lines.append(f"## `{name}`\n")
        lines.append(item(f"**figure**: {limit.figure}"))
        lines.append(item(", ".join(f"**{word}** {sign} {v:g}" for word, v in given.items() if v is not None)))
        lines.append(item(f"**why there**: {limit.source}") + "\n")
    lines.append("## Other limits\n\nIn a recipe, for instance:\n\n```toml\n[diagnose]")
    lines.append(f"{key('dead-codes', 'warn')} = 0.4\n```\n\nOthers have no threshold to set:\n")
    lines.extend(f"* `{name}`: {words}." for name, words in OTHER_FINDINGS.items())
    return "\n".join(lines)


FINDINGS_INTRO = """\
`vqtool diagnose` prints each finding with its severity (ok, note, warn, fail), the figure, the threshold and its
source, the likely cause and its fixes: commands to paste, each of which does alone. Most train the run's recipe again
with one option changed, such as `vqtool train runs/demo -s quantizer.revive_below=0.1`; in `--json` they are the
option, `-s quantizer.revive_below=0.1`, which `vqtool train RECIPE` takes as well. `vqtool improve CKPT` moves dead
codes of the checkpoint at hand. A model without a recipe gets the same advice in words. Every threshold is a default:
the table `[diagnose]` of a recipe sets others. A finding that another one explains is left out. "Since step N" names a
schedule only where it turned when the figure did.

`vqtool train` looks at the codebooks some twenty times a stage (`every` in `[diagnose]`), warns of what it finds at two
looks in a row, and stops there with `--stop-on`.

Which cause is named depends on the quantizer. Where a diversity loss exists (`log-perplexity`, `hf`, `diversity`) and
has no weight to speak of, that is the cause, and the fix; codes chosen by logits cannot be moved by `vqtool improve`.
FSQ and LFQ have no codebook to start or to move: their causes are outputs outside the bounded range, features that move
together, and more levels or bits than the data need. Even use is what a reconstruction wants; it is `too-uniform` only
in a contrastive task whose diversity loss pulls it there, and only a note where the context finds the codes.
"""


def benchmarks() -> str:
    """The page of benchmarks: what is written by hand, then the figures of a GPU, if any were measured."""
    path = DOCS / "figures/gpu.json"
    written = (DOCS / "benchmarks.md").read_text(encoding="utf-8").partition(GPU_MARK)[0]
    figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return f"{written}{GPU_MARK}\n{gpu_figures(figures)}"


def gpu_figures(figures: dict[str, Any]) -> str:
    """What `tests/gpu.py` found, part by part; a part that failed says so."""
    if not figures:
        return "No figure was measured on a GPU.\n"
    on = any(True in part.values() for part in (figures.get("kernels") or {}).values() if part)
    lines = [
        f"Measured on one {figures['machine']} with torch {figures['torch']} on {figures['date']},",
        f"{'with' if on else 'without'} the kernels; float32, TF32 off, medians by CUDA events. Ratios are to ours.\n",
    ]
    rows = figures.get("benchmark", [])
    if isinstance(rows, dict):
        lines.append(f"The benchmark failed: {rows['error']}\n")
    else:
        lines += [
            "| case | ours ms, train / encode | as CUDA graphs | peers / ours, train / encode | MiB, encode |",
            "|---|---|---|---|---|",
            *(gpu_row(row) for row in rows),
            "",
        ]
    for name, text in GPU_PARTS.items():
        part = figures.get(name)
        if part is None:
            lines.append(f"* {name}: not measured.")
        elif "error" in part:
            lines.append(f"* {name}: failed: {part['error']}")
        else:
            lines.append(textwrap.fill(f"* {text(part)}", 120, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) + "\n"


def gpu_row(row: dict[str, Any]) -> str:
    """A case of the benchmark; of peers, how often ours fits into their time."""
    modes, levels = ("train", "encode"), row["levels"]
    name = f"{'' if levels == 1 else f'{levels} x '}{row['codes']:,} codes, N {row['tokens']:,}, D {row['dim']}"
    peers = {"EnCodec's formula": {"train_ms": row["encodec_train_ms"]}} if "encodec_train_ms" in row else {}

    def times(suffix: str) -> str:
        found = [row.get(f"{mode}{suffix}") for mode in modes]
        return " / ".join("-" if ms is None else f"{ms:.2f}" for ms in found) if any(found) else ""

    def ratio(peer: dict[str, float], mode: str) -> str:
        ms, ours = peer.get(f"{mode}_ms"), row.get(f"{mode}_ms")
        return f"{ms / ours:.2f}" if ms and ours else "-"

    raced = (f"{n} {ratio(p, 'train')} / {ratio(p, 'encode')}" for n, p in {**peers, **row.get("peers", {})}.items())
    memory = row.get("encode_mib")
    cells = [name, times("_ms"), times("_graph_ms"), "; ".join(raced), "" if memory is None else f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |"


def listed(found: dict[str, Any], none: str) -> str:
    """Names with what was found, or that there are none."""

    def words(value: Any) -> str:
        if isinstance(value, dict):
            return f"{value['codes']} codes, gradient {value['gradient']:.2g}"
        return {True: "yes", False: "no"}.get(value, value)

    return "; ".join(f"{name} ({words(value)})" for name, value in found.items()) or none


GPU_MARK = "<!-- from here made by docs/make.py from docs/figures/gpu.json -->"
GPU_PARTS = {
    "float64": lambda rows: (
        f"{sum(row['wrong'] for row in rows):,} of {sum(row['tokens'] for row in rows):,} codes are wrong against "
        f"float64, of these data: {', '.join(dict.fromkeys(row['data'] for row in rows))}."
    ),
    "same_bits": lambda found: f"Two runs end with the same bits: {listed(found, 'none tried')}.",
    "laws": lambda found: (
        f"{found['kept']} laws kept, {len(found['broken'])} broken: {listed(found['broken'], 'none')}; "
        f"not run: {listed(found['not run'], 'none')}."
    ),
    "cpu": lambda found: (
        f"Of {found['combinations']} combinations of topologies and kinds, these differ from the CPU: "
        f"{listed(found['different'], 'none')}."
    ),
    "recipes": lambda found: f"Recipes, shortly trained: {listed(found, 'none')}.",
    "ranks": lambda found: f"Under torchrun: {listed(found, 'none')}.",
}

PAGES = {
    "benchmarks.md": benchmarks,
    "findings.md": findings,
    "cli.md": cli,
    "parts.md": parts,
    "laws.md": laws,
    "hooks.md": hooks,
}


def main() -> int:
    """Write or compare every page."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make().rstrip("\n") + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("stale:" if "--check" in sys.argv else "written:", *stale)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
