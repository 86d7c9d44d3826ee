"""Read a recipe: its schema, its source with line numbers, and errors in the recipe's own words."""
