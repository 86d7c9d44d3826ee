"""The launcher of a jail: it builds the namespaces and the root, then becomes the fork server.

It runs as `python -c` with a plan in JSON as its argument: standard library only, Python 3.9 and later. If the kernel
refuses a step, it prints a sentence to standard error and exits. See namespaces(7) and pivot_root(2).
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
# Folders of the intermediate root: the host's root, and the jail's root while it is built.
OLD, NEW = "/old", "/new"

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int, step: str) -> None:
    """Exit with the name of the step and the reason if a system call failed."""
    if result < 0:
        sys.exit(f"{step}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2), and exit if it fails."""
    words = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    must(libc.mount(*words), f"mount {target}")


def read_only(target: str, attributes: int, recursive: bool) -> None:
    """Set restrictions, such as read-only, on a mount and, if `recursive`, on the mounts below it."""
    # mount_setattr(2), not MS_REMOUNT: the latter does not change the mounts below. `words` is a struct mount_attr.
    words = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = ctypes.c_uint(AT_RECURSIVE if recursive else 0)
    number = ctypes.c_long(MOUNT_SETATTR)
    result = libc.syscall(number, ctypes.c_int(AT_FDCWD), target.encode(), flags, words, ctypes.c_size_t(32))
    must(result, f"make {target} read-only (Linux 5.12)")


def enter_namespaces() -> None:
    """Move this process into new namespaces of every kind but time, and map its user to root inside."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
    must(libc.unshare(flags), "unshare user namespaces")
    # setgroups must be denied before an ordinary user may write gid_map, see user_namespaces(7).
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            sys.exit(f"write /proc/self/{name}: {error.strerror}")
    # This limit belongs to the new user namespace. A program that could create another one would be root in it, with
    # more of the kernel within its reach.
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    except OSError as error:
        sys.exit(f"forbid further user namespaces: {error.strerror}")


def build_root(plan: dict[str, Any]) -> None:
    """Replace the root folder by one that contains what the plan lists, and nothing else.

    The first pivot_root puts an intermediate tmpfs in the place of the host's root, which is then at /old. The jail's
    root is built at /new from parts of /old. After /old is unmounted, the second pivot_root makes /new the root, and
    the intermediate tmpfs is unmounted too.
    """
    must(libc.sethostname(b"jail", ctypes.c_size_t(4)), "set the host name")
    # Slave mounts: nothing that is mounted from here on becomes visible outside.
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
    # With both folders the same, the outer root is stacked on top of the new one, so "." unmounts the outer one.
    os.chdir(NEW)
    pivot(".", ".")
    must(libc.umount2(b".", MNT_DETACH), "unmount the outer root")
    os.chdir("/")
    read_only("/", MOUNT_ATTR_RDONLY, recursive=False)


def pivot(new: str, old: str) -> None:
    """Call pivot_root(2), and exit if it fails."""
    number = ctypes.c_long(PIVOT_ROOT[os.uname().machine])
    must(libc.syscall(number, new.encode(), old.encode()), f"pivot_root to {new}")


def bind(path: str, attributes: int) -> None:
    """Mount a file or a folder of the host in the jail's root, under its own name."""
    if os.path.isdir(OLD + path):
        os.makedirs(NEW + path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(NEW + path), exist_ok=True)
        os.close(os.open(NEW + path, os.O_CREAT | os.O_WRONLY, 0o444))
    mount(OLD + path, NEW + path, "", MS_BIND | MS_REC)
    read_only(NEW + path, attributes, recursive=True)


def main() -> None:
    """Build the jail, then become the fork server; the intermediate process waits for it to end."""
    plan = json.loads(sys.argv[1])
    parent = os.getppid()
    enter_namespaces()
    # Ask for the death signal after the namespaces are entered: the kernel clears it when credentials change, see
    # prctl(2). If the parent has ended before, no signal comes.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    # unshare(2) does not move its caller into the new PID namespace, only the processes that it forks. The child is the
    # first process of that namespace: when it dies, the kernel kills every process in the jail.
    pid = os.fork()
    if pid:
        for fd in plan["close"]:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build_root(plan)
    # The fork server keeps one capability: it mounts each job's /tmp and creates each job's namespaces.
    for capability in range(64):
        if capability != CAP_SYS_ADMIN:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.execve(plan["command"][0], plan["command"], plan["environment"])


main()
