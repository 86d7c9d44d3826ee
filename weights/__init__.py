"""Arithmetic on checkpoints, streamed tensor by tensor from safetensors."""
