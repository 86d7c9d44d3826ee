"""Gemma 3's attention: local and global layers, packed and padded batches, without a mask of T x T entries."""
