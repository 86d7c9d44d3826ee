"""The `qat` stage: quantisation-aware training."""
