"""Built-in kinds of reward, one file per kind."""
