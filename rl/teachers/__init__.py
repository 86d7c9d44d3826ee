"""Teachers of a distillation: what answers for a teacher, in this process or elsewhere."""
