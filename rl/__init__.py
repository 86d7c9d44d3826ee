"""Reinforcement learning: rewards, rollouts, algorithms, teachers for distillation, and the stages that use them."""
