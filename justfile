# `just` runs lint and tests; see CONTRIBUTING.md.
default: lint test

test:
    pytest

lint:
    ruff check .
    ruff format --check .
    mypy

fix:
    ruff check --fix .
    ruff format .

# the JSON Schema that editors complete recipes with
schema:
    vqtool schema > recipes/recipe.schema.json
