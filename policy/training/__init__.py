"""Train a policy: engine, DeepSpeed, processes that train together, and kept checkpoints."""
