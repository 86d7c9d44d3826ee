"""The `warp` stage: weight-averaged rewarded policies."""
