"""Whatever draws completions: one contract, and the samplers behind it."""
