"""`gemsmith schema`: the JSON Schema of recipes."""

import json


def schema() -> None:
    """Print the JSON Schema of recipes, for use in an editor."""
    from gemsmith.recipes.schema.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=2))
