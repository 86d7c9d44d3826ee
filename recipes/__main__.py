"""`python -m recipes` is `gemsmith`."""

from recipes.cli import app

app(prog_name="gemsmith")
