"""Training of a policy: engine, DeepSpeed, parallel processes, and kept checkpoints."""
