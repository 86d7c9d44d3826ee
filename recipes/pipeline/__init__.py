"""Turn a recipe into a pipeline: the stage graph, and each stage's inputs and identity."""
