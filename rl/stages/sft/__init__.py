"""The `sft` stage: supervised fine-tuning."""
