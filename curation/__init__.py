"""Where prompts, demonstrations and preferences come from."""
