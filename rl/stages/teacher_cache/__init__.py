"""The `teacher_cache` stage: writes a teacher's targets to a store that distill stages read."""
