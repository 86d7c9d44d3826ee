"""Files that run inside a jail: standard library only, Python 3.9 and later, no import of this project."""
