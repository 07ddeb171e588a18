"""`vqtool schema`: the JSON Schema of recipes, for editors."""

from __future__ import annotations

from vqtool.console import json_text, out
from vqtool.recipe.schema import recipe_schema


def run() -> int:
    """Print the schema; it is JSON with and without --json."""
    schema = recipe_schema()
    out.print(json_text(schema))
    out.document(schema)
    return 0
