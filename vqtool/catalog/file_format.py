"""File formats of plugins that `vqtool show` describes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format that files are recognised by.

    Args:
        head: the first bytes of every such file.
        target: "package.module:function", imported when such a file is shown. The function takes the file's path and
            returns what it holds, JSON values by name; where it can, it does not import torch.
    """

    head: bytes
    target: str
