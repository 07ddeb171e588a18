"""Which of our quantizers equals one of another library, family by family: from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.foreign.slots import Book, Map, Slot
from vqtool.quantizers.core.composable import Layout

Table = dict[str, Any]  # a quantizer as a recipe has it
LUCIDRAINS = "vector-quantize-pytorch"
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """Our quantizer, and where its tensors come from."""

    family: str
    quantizer: Table
    dim: int
    layout: Layout
    slots: Sequence[Slot]


@dataclass(slots=True)
class Hints:
    """What tensors do not show, from the module that has them; by default what the library's defaults are."""

    layout: Layout | Literal[""] = ""
    search: str = ""
    cosine: bool | None = None
    learned: bool = False
    options: Table = field(default_factory=dict)  # of our `vq`


@dataclass(frozen=True, slots=True)
class Family:
    """A library's quantizers: the names of their codebooks, and what they are here."""

    name: str  # as foreign.families calls it
    key: str  # as --to calls it
    books: str  # a pattern of the names of codebooks, behind the quantizer's own
    plan: Callable[[State, Sequence[re.Match[str]], Hints], Plan]


def encodec(state: State, books: Sequence[re.Match[str]], hints: Hints) -> Plan:
    """Levels of codebooks that follow by moving average, in the latents' own space or behind a map each."""
    slots: list[Slot] = []
    tables, dim = [], 0
    for number, match in enumerate(books):
        inner, ours = match[0].removesuffix("embed"), f"levels.{number}."
        vectors = state[match[0]]
        counts, sums, started = named(inner, state, "cluster_size", "embed_avg", "inited")
        slots.append(Book(f"{ours}codebook.", match[0], counts, sums, started))
        table = vq(vectors.shape[0], hints.search or "encodec", hints)
        width, own = through_maps(state, f"{match['layer'] or ''}project_", ours, slots)
        dim = width or vectors.shape[1]
        tables.append(table | ({"code_dim": vectors.shape[1], "project": "affine"} if own else {}))
    return Plan("EnCodec", levels(tables), dim, hints.layout or "BCL", slots)


def mimi(state: State, books: Sequence[re.Match[str]], hints: Hints) -> Plan:
    """A semantic and an acoustic residual quantizer of the same latents, each behind maps, whose vectors are added."""
    halves: dict[str, list[re.Match[str]]] = {}
    for match in books:
        halves.setdefault(match["half"] or "", []).append(match)
    slots: list[Slot] = []
    parts, dim = [], 0
    for number, (half, own) in enumerate(halves.items()):
        prefix, inside = f"groups.{number}." if len(halves) > 1 else "", state[own[0][0]].shape[1]
        for level, match in enumerate(own):
            inner = re.sub(r"embed(ding)?_sum$", "", match[0])
            counts, started = named(inner, state, "cluster_usage", ("initialized", "_initialized"))
            slots.append(Book(f"{prefix}levels.{level}.codebook.", match[0], counts, started=started, divide=True))
        part, dim = levels([vq(len(state[match[0]]), hints.search or "mimi", hints) for match in own]), inside
        ends = [(f"{prefix}inwards.", f"{half}input_proj."), (f"{prefix}outwards.", f"{half}output_proj.")]
        if f"{half}input_proj.weight" in state:
            slots += [Map.of(ours, theirs, state) for ours, theirs in ends]
            dim = state[f"{half}input_proj.weight"].shape[1]
            part |= {"code_dim": inside, "maps": "affine-conv" if f"{half}input_proj.bias" in state else "conv"}
        parts.append(part)
    whole = parts[0]
    if len(parts) > 1:
        whole = {"kind": "grouped", "of": parts, "code_dim": dim * len(parts), "maps": "repeat"}
    return Plan("Mimi", whole, dim, hints.layout or "BCL", slots)


def dac(state: State, books: Sequence[re.Match[str]], hints: Hints) -> Plan:
    """Levels of trained codes, each behind convolutions of width one and chosen by its direction."""
    slots: list[Slot] = []
    tables, dim = [], 0
    plain = not any(name.endswith(("weight_g", "original0")) for name in state)  # as transformers has it
    search = hints.search or ("dac-transformers" if plain else "dac")
    for number, match in enumerate(books):
        outer, ours = match[0].removesuffix("codebook.weight"), f"levels.{number}."
        size, inside = state[match[0]].shape
        slots.append(Book(f"{ours}codebook.", match[0], follows=False))
        maps = [Map.of(f"{ours}{o}.", f"{outer}{e}.", state)
                for o, e in (("inwards", "in_proj"), ("outwards", "out_proj"))]  # fmt: skip
        slots += maps
        dim = maps[0].weight(state).shape[1]
        tables.append(vq(size, search, hints) | {"code_dim": inside, "project": "affine-conv", "codes": "learned"})
    return Plan("DAC", levels(tables), dim, hints.layout or "BCL", slots)


def vqgan(state: State, books: Sequence[re.Match[str]], hints: Hints) -> Plan:
    """One table of trained codes."""
    size, dim = state[books[0][0]].shape
    table = vq(size, hints.search or "vqgan", hints) | {"codes": "learned"}
    return Plan("VQGAN", table, dim, hints.layout or "BCHW", [Book("codebook.", books[0][0], follows=False)])


def lucidrains(state: State, books: Sequence[re.Match[str]], hints: Hints) -> Plan:
    """Codebooks that follow by moving average: one, of heads, of levels, of groups of levels; behind maps or not."""
    refuse(state)
    slots: list[Slot] = []
    groups: dict[str, list[re.Match[str]]] = {}
    for match in books:
        groups.setdefault(match["group"] or "", []).append(match)
    tables = []
    dim = 0
    for number, (group, own) in enumerate(groups.items()):
        prefix = f"groups.{number}." if group else ""
        if own[0]["layer"] is None:
            table, dim = heads(state, own[0], hints, slots)
        else:
            table, dim = residual(state, own, hints, prefix, slots)
        tables.append(table)
        slots_of_maps = through_maps(state, f"{group}project_", prefix, slots)
        if slots_of_maps[1]:
            table |= {"code_dim": dim, "project" if table["kind"] == "vq" else "maps": "affine"}
            dim = slots_of_maps[0]
    whole = tables[0]
    if next(iter(groups)):
        whole, dim = {"kind": "grouped", "of": tables}, dim * len(tables)
    return Plan(LUCIDRAINS, whole, dim, hints.layout or "BTD", slots)


def heads(state: State, match: re.Match[str], hints: Hints, slots: list[Slot]) -> tuple[Table, int]:
    """One codebook, or one for each head; and the width of all of them."""
    count, size, width = state[match[0]].shape
    books = [book(state, match[0], f"groups.{i}.codebook." if count > 1 else "codebook.", i, hints)
             for i in range(count)]  # fmt: skip
    slots += books
    inside = state.get("project_in.weight")
    if inside is not None and inside.shape[0] != count * width:
        raise one_codebook(inside.shape[0] // width)
    table = vq(size, LUCIDRAINS, hints)
    return (table, width) if count == 1 else ({"kind": "grouped", "groups": count, "of": table}, count * width)


def one_codebook(count: int) -> VqtoolError:
    """The error for heads without codebooks of their own."""
    return VqtoolError(f"the {count} heads of this quantizer share one codebook, which vqtool has no equal of",
                       hint="with `separate_codebook_per_head` there is one: Grouped")  # fmt: skip


def residual(
    state: State, books: Sequence[re.Match[str]], hints: Hints, prefix: str, slots: list[Slot]
) -> tuple[Table, int]:
    """Levels of codebooks, and the width that they share."""
    tables = [vq(state[match[0]].shape[1], LUCIDRAINS, hints) for match in books]
    first = state[books[0][0]]
    shared = len(books) > 1 and all(state[m[0]].shape == first.shape and bool((state[m[0]] == first).all())
                                    for m in books)  # fmt: skip
    for level, match in enumerate(books):
        slots.append(book(state, match[0], f"{prefix}levels.{0 if shared else level}.codebook.", 0, hints))
    return levels(tables) | ({"levels": len(books), "shared": True} if shared else {}), first.shape[2]


def book(state: State, name: str, ours: str, part: int, hints: Hints) -> Book:
    """A codebook of vector-quantize-pytorch."""
    counts, sums, started = named(name.removesuffix("embed"), state, "cluster_size", "embed_avg", "initted")
    return Book(ours, name, counts, sums, started, part=part, follows=not hints.learned)


def refuse(state: State) -> None:
    """Options of vector-quantize-pytorch that change codes and have no equal.

    Raises:
        VqtoolError: there is one.
    """
    marks = {
        "affine_param": r"codebook_mean$", "vq_bridge": r"vq_bridge\.", "implicit_neural_codebook": r"mlps\.",
        "layernorm_after_project_in": r"project_in\.\d",
    }  # fmt: skip
    for option, pattern in marks.items():
        if any(re.search(pattern, name) for name in state):
            raise VqtoolError(f"this quantizer was made with `{option}`, which vqtool has no equal of",
                              hint="vqtool diagnose looks at it as it is")  # fmt: skip


def vq(size: int, search: str, hints: Hints) -> Table:
    """Our `vq`."""
    table = {"kind": "vq", "codebook_size": size, "search": search, **hints.options}
    if hints.cosine:
        table["metric"] = "cosine"
    return table | ({"codes": "learned"} if hints.learned else {})


def levels(tables: list[Table]) -> Table:
    """Our `residual` of these levels."""
    same = all(table == tables[0] for table in tables)
    return {"kind": "residual", **({"levels": len(tables), "of": tables[0]} if same else {"of": tables})}


def through_maps(state: State, theirs: str, ours: str, slots: list[Slot]) -> tuple[int, bool]:
    """The width in front of maps, and whether there are any; they are added to the slots."""
    if f"{theirs}in.weight" not in state:
        return 0, False
    slots += [Map.of(f"{ours}inwards.", f"{theirs}in.", state), Map.of(f"{ours}outwards.", f"{theirs}out.", state)]
    return state[f"{theirs}in.weight"].shape[1], True


def named(prefix: str, state: State, *words: str | tuple[str, ...]) -> list[str | None]:
    """The tensors beside a codebook's vectors; None where there is none of a name."""
    every = [(word,) if isinstance(word, str) else word for word in words]
    return [next((prefix + word for word in some if prefix + word in state), None) for some in every]


LAYER = r"(?P<layer>layers\.\d+\.)?"
ENCODEC = r"(?P<layer>(?:vq\.)?layers\.\d+\.)?"
HALF = r"(?P<half>(?:\w+_residual_vector_quantizer|rvq_\w+)\.)?(?:vq\.)?"
FAMILIES = (
    Family("EnCodec", "encodec", rf"{ENCODEC}_?codebook\.embed", encodec),
    Family("DAC", "dac", r"(?P<layer>quantizers\.\d+\.)?codebook\.weight", dac),
    Family("Mimi", "mimi", rf"{HALF}{LAYER}_?codebook\.embed(?:ding)?_sum", mimi),
    Family("VQGAN", "vqgan", r"(?:embedding|embed|codebook)\.weight", vqgan),
    Family(LUCIDRAINS, LUCIDRAINS, rf"(?P<group>rvqs\.\d+\.)?{LAYER}_codebook\.embed", lucidrains),
)
KEYS = tuple(family.key for family in FAMILIES)


def hints_of(family: str, module: nn.Module) -> Hints:
    """What a module says that its tensors do not.

    Raises:
        VqtoolError: it computes in a way that has no equal.
    """
    if family == "DAC":
        return Hints(search="dac-transformers" if type(module).__module__.startswith("transformers.") else "dac")
    if family != LUCIDRAINS:
        return Hints()
    inner: Any = next((m for m in module.modules() if hasattr(m, "_codebook")), None)
    beams = [getattr(m, "eval_beam_size", None) or 1 for m in module.modules()]
    if max(beams) > 1:
        raise VqtoolError("this quantizer searches with a beam (`beam_size`), which vqtool has no equal of",
                          hint="our own `beam` rounds otherwise: give it to Residual(beam=...) by hand")  # fmt: skip
    if inner is None:
        return Hints()
    heads = getattr(inner, "heads", 1)
    if heads > 1 and not getattr(inner, "separate_codebook_per_head", True):
        raise one_codebook(heads)

    def has(name: str) -> Any:
        return getattr(inner, name, False)

    layout: Layout = "BTD" if getattr(inner, "channel_last", True) else "BCL"
    layout = "BCHW" if has("accept_image_fmap") else "BCTHW" if has("accept_3d_fmap") else layout
    options: Table = {"gradient": "rotation"} if has("rotation_trick") else {}
    decay = getattr(inner._codebook, "decay", None)
    if isinstance(decay, float) and 0 <= decay < 1:
        options["decay"] = decay
    learned = bool(getattr(inner._codebook, "learnable_codebook", False))
    return Hints(layout, cosine=getattr(inner, "use_cosine_sim", None), learned=learned, options=options)
