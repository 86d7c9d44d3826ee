"""Backends of the code sandbox: one module for each way to build a jail, and the client of a remote service.

A local backend starts one process, which becomes the jail's fork server (`jail/zygote.py`). `backends/jail.py` is the
host's side of its control socket.
"""
