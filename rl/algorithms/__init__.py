"""Algorithms that learn from a policy's own samples: BOND and REINFORCE, and what they are made of."""
