"""What the rooms of the house agree on: strict configuration, errors for people, and what a stage is given."""
