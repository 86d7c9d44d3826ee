"""Files that run inside a jail: standard library only, Python 3.9 and later, no import of this project.

Four parties take part, in the order of how much they are trusted:

- the host (`sandboxes/code`, outside the jail) holds the expected values and makes every verdict;
- the launcher and the fork server ("zygote") build the jail and start jobs; they are trusted, and never read anything
  that a job wrote;
- the judge runs a record's test code, which is trusted, in a jail of its own;
- the runner shares its process with the program under test, so nothing that it reports is trusted.
"""
