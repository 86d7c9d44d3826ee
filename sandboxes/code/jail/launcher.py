"""Builds a jail's namespaces and root, then becomes its fork server (Linux: namespaces(7), pivot_root(2)).

Standard library only, Python 3.9 and later. Given as `python -c` with a plan in JSON; it ends with a sentence on
standard error where a step is refused.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = (0x00020000, 0x02000000, 0x04000000, 0x08000000)
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 19,
)
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
CAP_SYS_ADMIN = 21
OLD, NEW = "/old", "/new"

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int, step: str) -> None:
    """End with a sentence where a system call failed."""
    if result < 0:
        sys.exit(f"{step}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    words = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    must(libc.mount(*words), f"mount {target}")


def read_only(target: str, attributes: int, recursive: bool) -> None:
    """Take rights from a mount, and from those below it."""
    words = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = ctypes.c_uint(AT_RECURSIVE if recursive else 0)
    number = ctypes.c_long(MOUNT_SETATTR)
    result = libc.syscall(number, ctypes.c_int(AT_FDCWD), target.encode(), flags, words, ctypes.c_size_t(32))
    must(result, f"make {target} read-only (Linux 5.12)")


def enter_namespaces() -> None:
    """New namespaces of every kind, with this user as their root."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
    must(libc.unshare(flags), "unshare user namespaces")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            sys.exit(f"write /proc/self/{name}: {error.strerror}")
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")  # no further ones in here
    except OSError as error:
        sys.exit(f"forbid further user namespaces: {error.strerror}")


def build_root(plan: dict[str, Any]) -> None:
    """A root that holds what the plan says, and nothing else."""
    must(libc.sethostname(b"jail", ctypes.c_size_t(4)), "set the host name")
    mount("none", "/", "", MS_REC | MS_SLAVE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=64,mode=755")
    os.mkdir("/tmp" + OLD)
    os.mkdir("/tmp" + NEW)
    pivot("/tmp", "/tmp" + OLD)
    os.chdir("/")
    mount("tmpfs", NEW, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=1024,mode=755")
    for path in plan["shown"]:
        bind(path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    for name, target in plan["links"]:
        os.symlink(target, NEW + name)
    for folder in plan["emptied"]:
        mount("tmpfs", NEW + folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,nr_inodes=2,mode=555")
    for device in plan["devices"]:
        bind(f"/dev/{device}", MOUNT_ATTR_NOSUID)
    os.makedirs(NEW + os.path.dirname(plan["worker"]))
    with open(NEW + plan["worker"], "wb") as file, open(plan["archive"], "rb") as archive:
        file.write(archive.read())
    os.makedirs(NEW + "/tmp", exist_ok=True)
    must(libc.umount2(OLD.encode(), MNT_DETACH), "unmount the old root")
    os.chdir(NEW)
    pivot(".", ".")
    must(libc.umount2(b".", MNT_DETACH), "unmount the outer root")
    os.chdir("/")
    read_only("/", MOUNT_ATTR_RDONLY, recursive=False)


def pivot(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = ctypes.c_long(PIVOT_ROOT[os.uname().machine])
    must(libc.syscall(number, new.encode(), old.encode()), f"pivot_root to {new}")


def bind(path: str, attributes: int) -> None:
    """Show a file or a folder of the host under its own name."""
    if os.path.isdir(OLD + path):
        os.makedirs(NEW + path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(NEW + path), exist_ok=True)
        os.close(os.open(NEW + path, os.O_CREAT | os.O_WRONLY, 0o444))
    mount(OLD + path, NEW + path, "", MS_BIND | MS_REC)
    read_only(NEW + path, attributes, recursive=True)


def main() -> None:
    """Build, and become the fork server; the process in between waits for its end."""
    plan = json.loads(sys.argv[1])
    parent = os.getppid()
    enter_namespaces()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    pid = os.fork()
    if pid:
        for fd in plan["close"]:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build_root(plan)
    for capability in range(64):
        if capability != CAP_SYS_ADMIN:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.execve(plan["command"][0], plan["command"], plan["environment"])


main()
