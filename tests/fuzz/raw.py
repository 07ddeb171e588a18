"""Damage that needs no knowledge of a format: to bytes, to lines of text, to JSON values."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]
DEEP = 20_000  # nested brackets: deeper than any parser that recurses goes
LONG = "7" * 5000  # more digits than Python turns into an integer
JUNK = ("", "nan", "-inf", "1e999", "-1", "0", "1e302", "NULL", '"', "é\x00", "\x1b[31m", "=1+1", LONG, "9" * 30,
        "2020-13-45", "../../x", "true", "[" * DEEP, "x" * 200_000)  # fmt: skip


def flip(content: bytes, rng: Random) -> bytes:
    """Some bits turned over, most often near the beginning."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if made:
            made[_place(len(made), rng)] ^= 1 << rng.randrange(8)
    return bytes(made)


def cut(content: bytes, rng: Random) -> bytes:
    """Only the beginning, or only the end."""
    at = rng.choice((0, 1, 7, rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:at] if rng.random() < 0.8 else content[at:]


def zero(content: bytes, rng: Random) -> bytes:
    """A block of zeros, as a disk leaves them."""
    return _replaced(content, rng, lambda n: bytes(n))


def noise(content: bytes, rng: Random) -> bytes:
    """A block of random bytes, or nothing else."""
    return rng.randbytes(rng.randrange(5000)) if rng.random() < 0.2 else _replaced(content, rng, rng.randbytes)


def length(content: bytes, rng: Random) -> bytes:
    """A number of 2, 4 or 8 bytes, where a header may have one, becomes huge or negative."""
    form = rng.choice("<>") + rng.choice("HIQ")
    size = struct.calcsize(form)
    if len(content) < size:
        return content
    top = 256**size
    value = rng.choice((top - 1, top // 2, top // 2 - 1, 10**9 % top, 2**20 % top, rng.randrange(top)))
    at = min(_place(len(content), rng), len(content) - size)
    return content[:at] + struct.pack(form, value) + content[at + size :]


def again(content: bytes, rng: Random) -> bytes:
    """A piece twice, or put elsewhere."""
    at, many, to = _place(len(content), rng), rng.randrange(1, 600), rng.randrange(len(content) + 1)
    return content[:to] + content[at : at + many] + content[to:]


def without(content: bytes, rng: Random) -> bytes:
    """A piece left out."""
    at = _place(len(content), rng)
    return content[:at] + content[at + rng.randrange(1, 600) :]


def _place(size: int, rng: Random) -> int:
    return rng.randrange(max(1, min(size, rng.choice((64, 512, size, size)))))


def _replaced(content: bytes, rng: Random, block: Callable[[int], bytes]) -> bytes:
    at, many = _place(len(content), rng), rng.choice((1, 4, 16, 256, 4096))
    many = min(many, len(content) - at)
    return content[:at] + block(max(0, many)) + content[at + many :]


BYTES: tuple[Mutator, ...] = (flip, cut, zero, noise, length, again, without)


def lines(content: bytes, rng: Random) -> bytes:
    """Lines dropped, repeated or exchanged; other line ends; another encoding."""
    parts = content.split(b"\n")
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    how = rng.randrange(7)
    if how == 0:
        del parts[at]
    elif how == 1:
        parts.insert(other, parts[at])
    elif how == 2:
        parts[at], parts[other] = parts[other], parts[at]
    elif how == 3:
        parts[at] = parts[at][: rng.randrange(len(parts[at]) + 1)]
    elif how == 4:
        return content.decode(errors="replace").encode(rng.choice(("utf-16", "latin-1", "utf-8-sig")), "replace")
    elif how == 5:
        return content.replace(b"\n", rng.choice((b"\r", b"\r\n", b" ", b"\n\n\x00\n")))
    else:
        parts[at] += rng.choice(JUNK).encode()
    return b"\n".join(parts)


def cells(content: bytes, rng: Random) -> bytes:
    """A cell of a table (commas, blanks or what an XML file has between tags) becomes something else."""
    text = content.decode("utf-8", "replace")
    mark = rng.choice([m for m in (",", " ", ">", "=") if m in text] or [","])
    parts = text.split(mark)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(min(len(parts), rng.choice((8, 40, len(parts)))))
        parts[at] = rng.choice((*JUNK, parts[rng.randrange(len(parts))]))
    return mark.join(parts).encode()


def json_text(content: bytes, rng: Random) -> bytes:
    """A JSON text with a value or key of it changed, dropped, repeated or made huge."""
    try:
        value = json.loads(content)
    except ValueError:
        return cells(content, rng)
    return changed_json(value, rng).encode()


def json_lines(content: bytes, rng: Random) -> bytes:
    """The same in one line of many."""
    parts = content.split(b"\n")
    at = rng.randrange(len(parts))
    parts[at] = json_text(parts[at], rng)
    return b"\n".join(parts)


def changed_json(value: Any, rng: Random) -> str:
    """A JSON value with one place changed, as text: what `json` would not write is put in afterwards."""
    holder: dict[str, Any] = {"root": value}
    places = [(holder, "root"), *_places(value)]
    inner, key = rng.choice(places)
    raw = {"@deep@": "[" * DEEP + "]" * DEEP, "@map@": '{"a":' * DEEP + "1" + "}" * DEEP, "@long@": LONG,
           "@big@": "1e999", "@nan@": "NaN", "@twice@": '1, "kind": 2, "name"'}  # fmt: skip
    how = rng.randrange(10)
    if how < 3 and inner is not holder:
        del inner[key]
    elif how == 3 and isinstance(inner, dict) and inner is not holder:
        inner[rng.choice(("x", "", "__class__", key + "\x1b[31m"))] = inner.pop(key)
    else:
        inner[key] = rng.choice((None, True, -1, 0, 10**30, 1e308, "x", "../../x", [], {}, ["a", 1], {"$path": 3},
                                 inner[key], [inner[key]], str(inner[key]), *raw))  # fmt: skip
    text = json.dumps(holder.get("root"))
    for mark, put in raw.items():
        text = text.replace(f'"{mark}"', put)
    return text


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as the container and the key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in pairs for place in [(value, key), *_places(item)]]
