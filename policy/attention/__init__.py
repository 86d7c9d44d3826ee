"""Gemma 3's attention: local and global layers, packed and padded batches, with no mask of T x T entries anywhere."""
