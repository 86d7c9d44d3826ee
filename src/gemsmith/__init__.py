"""Post-train Gemma 3 as Gemma 3 was post-trained: distillation, BOND, WARM and WARP from one YAML recipe."""
