"""Log-probabilities over the 262,144 entries of Gemma's vocabulary without holding all logits."""
