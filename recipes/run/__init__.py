"""Run a pipeline: stages in order, records on disk, what the terminal shows, several processes."""
