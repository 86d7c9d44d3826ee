"""Post-train Gemma 3 as Gemma 3 was post-trained: distillation, BOND, WARM and WARP from one YAML recipe.

`gemsmith.run("quickstart")` runs a recipe; docs/reference/python-api.md describes the other functions. Importing this
package is fast, because it loads each name when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemsmith import merge
    from gemsmith.contracts.errors import RunError, UserError
    from gemsmith.policy.policy import Policy
    from gemsmith.recipes.api.planning import Plan, plan, validate
    from gemsmith.recipes.api.results import Run, RunStage
    from gemsmith.recipes.api.run import open_run, run
    from gemsmith.recipes.api.scores import Scores
    from gemsmith.recipes.api.verification import verify_code, verify_math
    from gemsmith.sandboxes.verdict import Status, Verdict

    __version__: str

__all__ = [
    "Plan",
    "Policy",
    "Run",
    "RunError",
    "RunStage",
    "Scores",
    "Status",
    "UserError",
    "Verdict",
    "__version__",
    "merge",
    "open_run",
    "plan",
    "run",
    "validate",
    "verify_code",
    "verify_math",
]

_HOMES = {
    "Plan": "recipes.api.planning",
    "Policy": "policy.policy",
    "Run": "recipes.api.results",
    "RunError": "contracts.errors",
    "RunStage": "recipes.api.results",
    "Scores": "recipes.api.scores",
    "Status": "sandboxes.verdict",
    "UserError": "contracts.errors",
    "Verdict": "sandboxes.verdict",
    "open_run": "recipes.api.run",
    "plan": "recipes.api.planning",
    "run": "recipes.api.run",
    "validate": "recipes.api.planning",
    "verify_code": "recipes.api.verification",
    "verify_math": "recipes.api.verification",
}
"""The module inside gemsmith that defines each name."""


if not TYPE_CHECKING:  # with a module-level __getattr__, a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Load a name in `__all__` on its first use."""
        if name == "merge":
            return import_module("gemsmith.merge")
        if name == "__version__":
            value: Any = _version()
        elif name in _HOMES:
            value = getattr(import_module(f"gemsmith.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'gemsmith' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("gemsmith")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
