"""`vqtool schema`: the JSON Schema of recipes, for editors."""

from __future__ import annotations

import json

from vqtool.console import out
from vqtool.recipe.schema import recipe_schema


def run() -> int:
    """Print the schema; it is JSON with and without --json."""
    schema = recipe_schema()
    out.print(json.dumps(schema, indent=1, ensure_ascii=False))
    out.document(schema)
    return 0
