"""Landlock rules: this process and all it starts may read the named files and folders, and change no file at all.

Standard library only, Python 3.9 and later, and no import of this project: the file also runs alone, inside the jail.
Landlock does not hide that a path exists, nor its size and owner: stat works for every path that the user may reach.
See landlock(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every machine
VERSION, PATH_BENEATH = 1, 1  # LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH
PR_SET_NO_NEW_PRIVS = 38

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Every right that is denied unless a rule allows it, by the ABI version that introduced it (uapi/linux/landlock.h).
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # EXECUTE to MAKE_SYM; REFER; TRUNCATE; IOCTL_DEV
NETWORK_RIGHTS = {4: 0b11}  # BIND_TCP, CONNECT_TCP
SCOPES = {6: 0b11}  # ABSTRACT_UNIX_SOCKET, SIGNAL: not to processes outside

# Files that an interpreter may need while it runs, beside the standard library: shared libraries and time zones.
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the ABI version of Landlock that the kernel offers; 0 if Landlock is missing or switched off."""
    version = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION))
    return max(0, int(version))


def restrict_to_interpreter() -> int:
    """Confine the calling thread to what a running Python program needs: it may read libraries and write no files.

    See `restrict` for the return value and the errors.
    """
    # Paths below /proc are descriptors that this process was started with, such as the worker archive.
    own = [place for place in sys.path if place and not place.startswith("/proc/")]
    return restrict([*own, *LIBRARIES], DEVICES)


def restrict(readable: Iterable[str], devices: Iterable[str] = ()) -> int:
    """Confine the calling thread and all it starts, irrevocably. After a second call both confinements apply.

    Args:
        readable: folders and files that may be read. Paths that do not exist are ignored.
        devices: files that may also be written.

    Returns:
        The Landlock ABI version in use.

    Raises:
        OSError: the kernel has no Landlock or refused a call. The thread is not confined then.
    """
    version = abi()
    if version < 1:
        raise OSError(errno.EOPNOTSUPP, "the kernel offers no Landlock")
    handled = _up_to(version, FILE_RIGHTS)
    attributes = struct.pack("QQQ", handled, _up_to(version, NETWORK_RIGHTS), _up_to(version, SCOPES))
    # Older kernels refuse a struct with fields that they do not know: networks came with ABI 4, scopes with ABI 6.
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, READ_FILE | READ_DIR)
        for path in devices:
            _allow(ruleset, path, READ_FILE | WRITE_FILE)
        # The kernel lets an ordinary user restrict itself only if it can no longer gain privileges by exec.
        zero = ctypes.c_ulong(0)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # A rule for a file must not contain rights that only folders have: the kernel refuses it.
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ~READ_DIR
        rule = struct.pack("=Qi", rights, place)  # struct landlock_path_beneath_attr is packed
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, "Landlock refused: " + os.strerror(code))
    return int(result)


def _up_to(version: int, rights: dict[int, int]) -> int:
    return sum(bits for since, bits in rights.items() if since <= version)
