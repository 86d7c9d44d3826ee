"""A seccomp filter, in classic BPF, that denies the system calls a job may not make; see seccomp(2) and prctl(2).

Standard library only, Python 3.9 and later, and no import of this project: the file also runs alone, inside the jail.
The tests make the denied calls on x86-64. The aarch64 filter is only evaluated by an interpreter of BPF in the tests;
it has not been run on such a machine.
"""

from __future__ import annotations

import ctypes
import errno
import struct

EPERM, ENOSYS, EAGAIN = errno.EPERM, errno.ENOSYS, errno.EAGAIN
ABSENT = -1
# Highest known system call: file_setattr, Linux 6.17. Calls that later kernels add are answered with ENOSYS until this
# table has been checked against them.
LAST_NUMBER = 469
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column of the tables below
X32_BIT = 0x40000000

# Denied in every jail: name, number on x86-64, number on aarch64 (asm/unistd_64.h and asm-generic/unistd.h of Linux
# 6.17), error: ENOSYS where a caller then uses another system call instead, else EPERM.
DENIED = (
    # other programs
    ("execve", 59, 221, EPERM),
    ("execveat", 322, 281, EPERM),
    ("clone3", 435, 435, ENOSYS),  # its flags are behind a pointer; on ENOSYS the C library falls back to clone
    # other processes
    ("ptrace", 101, 117, EPERM),
    ("process_vm_readv", 310, 270, EPERM),
    ("process_vm_writev", 311, 271, EPERM),
    ("process_madvise", 440, 440, EPERM),
    ("process_mrelease", 448, 448, EPERM),
    ("pidfd_open", 434, 434, EPERM),
    ("pidfd_getfd", 438, 438, EPERM),
    ("pidfd_send_signal", 424, 424, EPERM),
    ("kcmp", 312, 272, EPERM),
    ("get_robust_list", 274, 100, EPERM),
    ("migrate_pages", 256, 238, EPERM),
    ("move_pages", 279, 239, EPERM),
    ("setpriority", 141, 140, EPERM),
    ("ioprio_set", 251, 30, EPERM),
    ("sched_setparam", 142, 118, EPERM),
    ("sched_setscheduler", 144, 119, EPERM),
    ("sched_setattr", 314, 274, EPERM),
    ("sched_setaffinity", 203, 122, EPERM),
    # sockets, except a connected pair: AF_VSOCK and AF_NETLINK cross a network namespace, and the queue of a listening
    # socket keeps the data of its clients, 200 KiB each, after they have closed
    ("socket", 41, 198, EPERM),
    ("bind", 49, 200, EPERM),
    ("connect", 42, 203, EPERM),
    ("listen", 50, 201, EPERM),
    ("accept", 43, 202, EPERM),
    ("accept4", 288, 242, EPERM),
    ("setsockopt", 54, 208, EPERM),
    # memory that RLIMIT_AS does not count; measured here: 450 MiB of inotify events within a second, and 200 MiB of
    # ports in Landlock rulesets
    ("inotify_init", 253, ABSENT, EPERM),
    ("inotify_init1", 294, 26, EPERM),
    ("inotify_add_watch", 254, 27, EPERM),
    ("landlock_create_ruleset", 444, 444, EPERM),
    ("landlock_add_rule", 445, 445, EPERM),
    ("landlock_restrict_self", 446, 446, EPERM),
    ("memfd_create", 319, 279, EPERM),
    ("memfd_secret", 447, 447, EPERM),
    ("shmget", 29, 194, EPERM),
    ("shmat", 30, 196, EPERM),
    ("shmctl", 31, 195, EPERM),
    ("shmdt", 67, 197, EPERM),
    ("semget", 64, 190, EPERM),
    ("semop", 65, 193, EPERM),
    ("semctl", 66, 191, EPERM),
    ("semtimedop", 220, 192, EPERM),
    ("msgget", 68, 186, EPERM),
    ("msgsnd", 69, 189, EPERM),
    ("msgrcv", 70, 188, EPERM),
    ("msgctl", 71, 187, EPERM),
    ("mq_open", 240, 180, EPERM),
    ("mq_unlink", 241, 181, EPERM),
    ("mq_timedsend", 242, 182, EPERM),
    ("mq_timedreceive", 243, 183, EPERM),
    ("mq_notify", 244, 184, EPERM),
    ("mq_getsetattr", 245, 185, EPERM),
    ("add_key", 248, 217, EPERM),
    ("request_key", 249, 218, EPERM),
    ("keyctl", 250, 219, EPERM),
    ("io_setup", 206, 0, ENOSYS),
    ("io_destroy", 207, 1, ENOSYS),
    ("io_submit", 209, 2, ENOSYS),
    ("io_cancel", 210, 3, ENOSYS),
    ("io_getevents", 208, 4, ENOSYS),
    ("io_pgetevents", 333, 292, ENOSYS),
    ("vmsplice", 278, 75, ENOSYS),
    ("splice", 275, 76, ENOSYS),
    ("tee", 276, 77, ENOSYS),
    # large or rarely used parts of the kernel
    ("io_uring_setup", 425, 425, ENOSYS),
    ("io_uring_enter", 426, 426, ENOSYS),
    ("io_uring_register", 427, 427, ENOSYS),
    ("bpf", 321, 280, EPERM),
    ("perf_event_open", 298, 241, EPERM),
    ("userfaultfd", 323, 282, EPERM),
    ("seccomp", 317, 277, EPERM),
    ("fanotify_init", 300, 262, EPERM),
    ("fanotify_mark", 301, 263, EPERM),
    ("lookup_dcookie", 212, 18, EPERM),
    ("remap_file_pages", 216, 234, EPERM),
    ("personality", 135, 92, EPERM),
    ("modify_ldt", 154, ABSENT, EPERM),
    ("iopl", 172, ABSENT, EPERM),
    ("ioperm", 173, ABSENT, EPERM),
    ("uselib", 134, ABSENT, EPERM),
    ("ustat", 136, ABSENT, EPERM),
    ("sysfs", 139, ABSENT, EPERM),
    ("_sysctl", 156, ABSENT, EPERM),
    ("lsm_get_self_attr", 459, 459, EPERM),
    ("lsm_set_self_attr", 460, 460, EPERM),
    ("lsm_list_modules", 461, 461, EPERM),
    # mounts, namespaces, file handles
    ("mount", 165, 40, EPERM),
    ("umount2", 166, 39, EPERM),
    ("pivot_root", 155, 41, EPERM),
    ("chroot", 161, 51, EPERM),
    ("open_tree", 428, 428, EPERM),
    ("open_tree_attr", 467, 467, EPERM),
    ("move_mount", 429, 429, EPERM),
    ("fsopen", 430, 430, EPERM),
    ("fsconfig", 431, 431, EPERM),
    ("fsmount", 432, 432, EPERM),
    ("fspick", 433, 433, EPERM),
    ("mount_setattr", 442, 442, EPERM),
    ("statmount", 457, 457, EPERM),
    ("listmount", 458, 458, EPERM),
    ("unshare", 272, 97, EPERM),
    ("setns", 308, 268, EPERM),
    ("name_to_handle_at", 303, 264, EPERM),
    ("open_by_handle_at", 304, 265, EPERM),
    # identity
    ("setuid", 105, 146, EPERM),
    ("setgid", 106, 144, EPERM),
    ("setreuid", 113, 145, EPERM),
    ("setregid", 114, 143, EPERM),
    ("setresuid", 117, 147, EPERM),
    ("setresgid", 119, 149, EPERM),
    ("setfsuid", 122, 151, EPERM),
    ("setfsgid", 123, 152, EPERM),
    ("setgroups", 116, 159, EPERM),
    ("capset", 126, 91, EPERM),
    # the machine
    ("kexec_load", 246, 104, EPERM),
    ("kexec_file_load", 320, 294, EPERM),
    ("create_module", 174, ABSENT, EPERM),
    ("init_module", 175, 105, EPERM),
    ("finit_module", 313, 273, EPERM),
    ("delete_module", 176, 106, EPERM),
    ("syslog", 103, 116, EPERM),
    ("reboot", 169, 142, EPERM),
    ("swapon", 167, 224, EPERM),
    ("swapoff", 168, 225, EPERM),
    ("acct", 163, 89, EPERM),
    ("quotactl", 179, 60, EPERM),
    ("quotactl_fd", 443, 443, EPERM),
    ("nfsservctl", 180, 42, EPERM),
    ("settimeofday", 164, 170, EPERM),
    ("clock_settime", 227, 112, EPERM),
    ("adjtimex", 159, 171, EPERM),
    ("clock_adjtime", 305, 266, EPERM),
    ("sethostname", 170, 161, EPERM),
    ("setdomainname", 171, 162, EPERM),
    ("vhangup", 153, 58, EPERM),
    ("sync", 162, 81, EPERM),
    ("syncfs", 306, 267, EPERM),
)

# Calls that start a process; denied unless the job may start processes. EAGAIN is fork's usual error at a limit.
FORKS = (("fork", 57, ABSENT, EAGAIN), ("vfork", 58, ABSENT, EAGAIN))

# Also denied in jails without namespaces: there a job can reach other processes and the files of other users, and
# Landlock does not cover a file's mode, owner, times and attributes.
DENIED_ON_HOST = (
    ("tkill", 200, 130, EPERM),
    ("truncate", 76, 45, EPERM),
    ("chmod", 90, ABSENT, EPERM),
    ("fchmod", 91, 52, EPERM),
    ("fchmodat", 268, 53, EPERM),
    ("fchmodat2", 452, 452, EPERM),
    ("chown", 92, ABSENT, EPERM),
    ("fchown", 93, 55, EPERM),
    ("lchown", 94, ABSENT, EPERM),
    ("fchownat", 260, 54, EPERM),
    ("utime", 132, ABSENT, EPERM),
    ("utimes", 235, ABSENT, EPERM),
    ("futimesat", 261, ABSENT, EPERM),
    ("utimensat", 280, 88, EPERM),
    ("setxattr", 188, 5, EPERM),
    ("lsetxattr", 189, 6, EPERM),
    ("fsetxattr", 190, 7, EPERM),
    ("setxattrat", 463, 463, EPERM),
    ("removexattr", 197, 14, EPERM),
    ("lremovexattr", 198, 15, EPERM),
    ("fremovexattr", 199, 16, EPERM),
    ("removexattrat", 466, 466, EPERM),
    ("file_setattr", 469, 469, EPERM),
)

WHOLE = 0xFFFFFFFF
# System calls that are allowed only with some values of their arguments: (number of the argument, mask, values).
PAIR = ((0, WHOLE, (1,)), (1, 0xF, (1,)))  # AF_UNIX, SOCK_STREAM; a datagram socket could send to any address
# SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_PROTOCOL, SO_DOMAIN; no SO_PEERPIDFD
SOCKET_OPTIONS = (2, WHOLE, (3, 4, 7, 8, 38, 39))
# F_DUPFD to F_SETLKW, F_OFD_*LK*, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS; no F_SETOWN or F_SETSIG: they signal
FCNTLS = (1, WHOLE, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034))
# TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; no TIOCSTI, TIOCLINUX
IOCTLS = (1, WHOLE, (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451))
# PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_SET_NO_NEW_PRIVS,
# PR_GET_NO_NEW_PRIVS, PR_SET_VMA; no PR_SET_PDEATHSIG, as a job must die with its fork server
PRCTLS = (0, WHOLE, (2, 3, 15, 16, 21, 23, 38, 39, 0x53564D41))
# Name, number on x86-64, number on aarch64, conditions that must all hold.
RESTRICTED = (
    ("fcntl", 72, 25, (FCNTLS,)),
    ("ioctl", 16, 29, (IOCTLS,)),
    ("prctl", 157, 167, (PRCTLS,)),
    ("prlimit64", 302, 261, ((0, WHOLE, (0,)),)),
    ("socketpair", 53, 199, PAIR),
    ("getsockopt", 55, 209, (SOCKET_OPTIONS,)),
)
# Calls that send signals. In jails without a PID namespace, their first argument must be the job's own process id.
SIGNALS = (
    ("kill", 62, 129),
    ("tgkill", 234, 131),
    ("rt_sigqueueinfo", 129, 138),
    ("rt_tgsigqueueinfo", 297, 240),
)

CLONE = (56, 220)
CLONE_THREAD = 0x10000
CLONE_FORBIDDEN = 0x7E020000 | 0x8000  # every CLONE_NEW* that clone knows, and CLONE_PARENT

LOAD, AND, RETURN = 0x20, 0x54, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K
IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45  # BPF_JMP|BPF_{JEQ,JGT,JGE,JSET}|BPF_K
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000  # SECCOMP_RET_KILL_PROCESS, _ALLOW, _ERRNO
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def program(machine: str, *, processes: bool, host_pid: int | None = None) -> bytes:
    """Return the filter, as the bytes of an array of struct sock_filter.

    Args:
        machine: value of platform.machine(): x86_64 or aarch64.
        processes: allow the job to fork. It may never exec.
        host_pid: process id of the job if it has no namespaces, else None. If given, the job may send signals only to
            itself, and may not change the mode, owner, times or attributes of a file.

    Raises:
        ValueError: there is no system call table for `machine`.
    """
    if machine not in MACHINES:
        raise ValueError(f"there is no system call table for {machine!r}, only for {' and '.join(MACHINES)}")
    # The filter runs from top to bottom on every system call. First the architecture: a call with another one (such as
    # 32-bit x86) has other numbers, and kills the process. Next x32 calls, which set a bit of the number, and numbers
    # that are not known. Then one case for each restricted call; all others are allowed.
    architecture, column = MACHINES[machine]
    denied = DENIED + (() if processes else FORKS) + (() if host_pid is None else DENIED_ON_HOST)
    code = [_op(LOAD, ARCHITECTURE), _op(IF_EQUAL, architecture, 1, 0), _op(RETURN, KILL), _op(LOAD, NUMBER)]
    if machine == "x86_64":
        code += [_op(IF_AT_LEAST, X32_BIT, 0, 1), _op(RETURN, KILL)]
    code += [_op(IF_GREATER, LAST_NUMBER, 0, 1), _op(RETURN, ERRNO | ENOSYS)]
    for _, *numbers, answer in denied:
        if numbers[column] != ABSENT:
            code += _case(numbers[column], [_op(RETURN, ERRNO | answer)])
    for _, *numbers, conditions in RESTRICTED:
        code += _case(numbers[column], _allow_only(conditions))
    if host_pid is not None:
        for _, *numbers in SIGNALS:
            code += _case(numbers[column], _allow_only(((0, WHOLE, (host_pid,)),)))
    code += _case(CLONE[column], _clone(processes))
    return b"".join([*code, _op(RETURN, ALLOW)])


def install(program: bytes) -> None:
    """Install the filter, irrevocably, on the calling thread and all it starts, and give up gaining privileges.

    Raises:
        OSError: the kernel refused the filter.
    """
    filters = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(filters))  # struct sock_fprog
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    if prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, "the seccomp filter could not be installed: " + errno.errorcode.get(code, str(code)))


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _case(number: int, body: list[bytes]) -> list[bytes]:
    """Return code that runs `body` for one system call, and skips it for others.

    `body` must always return. The accumulator holds the number of the system call before and after this code.
    """
    return [_op(IF_EQUAL, number, 0, len(body)), *body]


def _allow_only(conditions: tuple[tuple[int, int, tuple[int, ...]], ...]) -> list[bytes]:
    """Return code that allows the call if each masked argument has one of its values, and denies it otherwise.

    Every argument that is checked is a 32-bit integer, so only its low word is loaded.
    """
    code = []
    # A match at `place` jumps over the values that remain and over the denial behind them.
    for argument, mask, values in conditions:
        code += [_op(LOAD, ARGUMENTS + 8 * argument), _op(AND, mask)]
        code += [_op(IF_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
        code += [_op(RETURN, ERRNO | EPERM)]
    return [*code, _op(RETURN, ALLOW)]


def _clone(processes: bool) -> list[bytes]:
    code = [_op(LOAD, ARGUMENTS), _op(IF_ANY_BIT, CLONE_FORBIDDEN, 0, 1), _op(RETURN, ERRNO | EPERM)]
    if not processes:
        code += [_op(IF_ANY_BIT, CLONE_THREAD, 1, 0), _op(RETURN, ERRNO | EAGAIN)]
    return [*code, _op(RETURN, ALLOW)]
