"""Run a pipeline: stages in order, records on disk, terminal output, several processes."""
