"""The `generate` stage: answers of a policy, as data for other stages."""
