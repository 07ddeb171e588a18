"""`python -m vqtool`, which is also what `torchrun -m vqtool` starts."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
    del sys.path[0]  # `-m` puts the working folder first, where a stranger's `json.py` would be run (see `python -P`)

from vqtool.cli import main

main()
