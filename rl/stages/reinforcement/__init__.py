"""The `bond` and `reinforce` stages."""
