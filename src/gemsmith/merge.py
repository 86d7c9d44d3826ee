"""Merge checkpoint folders: average (WARM), SLERP of task vectors (WARP), or linear interpolation of two."""

from gemsmith.recipes.api.merging import average, interpolate, slerp
from gemsmith.weights.merge import GroupMerge

__all__ = ["GroupMerge", "average", "interpolate", "slerp"]
