"""Verifiable instructions in the style of IFEval (Zhou et al. 2023, arXiv 2311.07911), checked without a model."""
