"""Merge checkpoint folders: their mean, the spherical interpolation of what they learnt, or a point between two."""

from gemsmith.recipes.api.merging import average, interpolate, slerp
from gemsmith.weights.merge import GroupMerge

__all__ = ["GroupMerge", "average", "interpolate", "slerp"]
