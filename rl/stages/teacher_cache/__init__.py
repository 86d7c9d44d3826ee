"""The `teacher_cache` stage: a teacher's targets, written once."""
