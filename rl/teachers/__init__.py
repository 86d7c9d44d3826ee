"""Teachers for distillation: in-process models, servers, and stores of precomputed targets."""
