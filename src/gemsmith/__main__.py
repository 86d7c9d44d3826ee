"""Run the command line: `python -m gemsmith` is `gemsmith`."""

from gemsmith.recipes.commands.cli import app

app(prog_name="gemsmith")
