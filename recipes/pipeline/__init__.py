"""Turn a recipe into a pipeline: the stage graph, each stage's inputs and identity."""
