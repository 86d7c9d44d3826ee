"""The `distill` stage: distillation from a teacher."""
