"""Losses and training loop of distillation from a teacher."""
