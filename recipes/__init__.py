"""Recipes: the schema, the stage graph, the runner, the command line, the report, and the recipe files themselves."""
