"""The store of a teacher's sampled targets: manifest, shards, reading and writing."""
