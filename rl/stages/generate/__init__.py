"""The `generate` stage: samples answers from a policy as training data for other stages."""
