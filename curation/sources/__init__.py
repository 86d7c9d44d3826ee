"""Readers of data sources, one file each; a source's configuration names its reader."""
