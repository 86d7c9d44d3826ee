"""Attacks on the kernel's wide interface: rare system calls, other processes, other programs, machine code."""

from tests.sandboxes.code.attacks.attack import (
    ATTEMPTS,
    CRASHED,
    SYSTEM_CALLS,
    WRONG,
    Attack,
)

KERNEL = [
    Attack(
        "59 reads and traces processes",
        SYSTEM_CALLS
        + """
reached("ptrace", 101, 0, 0, 0, 0)
reached("process_vm_readv", 310, os.getpid(), 0, 0, 0, 0, 0)
reached("process_vm_writev", 311, os.getpid(), 0, 0, 0, 0, 0)
reached("pidfd_getfd", 438, 0, 0, 0)
reached("kcmp", 312, 1, 1, 0, 0, 0)
""",
        (WRONG,),
        shows="refused ptrace",
        machine="x86_64",
    ),
    Attack(
        "60 kills others",
        ATTEMPTS
        + """
import signal
tried("everybody", os.kill, -1, signal.SIGKILL)
for number in range(2, 400):
    tried(str(number), os.kill, number, signal.SIGKILL)
if os.getppid():
    breach("parent", os.getppid())
""",
        (WRONG,),
        shows="refused everybody",
    ),
    Attack(
        "60 sees its parent",
        ATTEMPTS + "tried('parent', os.kill, os.getppid() or 10**6, 0)\n",
        (WRONG,),
        shows="refused parent",
    ),
    Attack(
        "63 a user namespace in the user namespace",
        SYSTEM_CALLS
        + """
reached("unshare", 272, 0x10000000)
reached("unshare all", 272, 0x7E020000)
def clone():
    if system_call(56, 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)
tried("clone", clone)
reached("clone3", 435, 0, 0)
""",
        (WRONG,),
        shows="refused unshare",
        machine="x86_64",
    ),
    Attack(
        "64 mounts",
        SYSTEM_CALLS
        + """
for name, number in {"mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155, "open_tree": 428,
                     "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
                     "mount_setattr": 442}.items():
    reached(name, number, 0, 0, 0, 0, 0)
tried("tmpfs", system_call, 165, b"tmpfs", b"/tmp", b"tmpfs", 0, 0)
tried("chroot", os.chroot, "/tmp")
""",
        (WRONG,),
        shows="refused mount",
        machine="x86_64",
    ),
    Attack(
        "65 other users and capabilities",
        SYSTEM_CALLS
        + """
reached("setns", 308, 0, 0)
tried("setuid", os.setuid, 12345)
tried("setgid", os.setgid, 12345)
tried("setgroups", os.setgroups, [0])
header = (ctypes.c_uint * 2)(0x20080522, 0)
everything = (ctypes.c_uint * 6)(*[0xFFFFFFFF] * 6)
tried("capset", system_call, 126, header, everything)
""",
        (WRONG,),
        shows="refused capset",
        machine="x86_64",
    ),
    Attack(
        "66 io_uring",
        SYSTEM_CALLS + "reached('io_uring', 425, 8, 0)\n",
        (WRONG,),
        shows="refused io_uring",
        machine="x86_64",
    ),
    Attack(
        "67 rare system calls",
        SYSTEM_CALLS
        + """
for name, number in {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249,
                     "keyctl": 250, "open_by_handle_at": 304, "name_to_handle_at": 303, "syslog": 103,
                     "modify_ldt": 154, "kexec_load": 246, "init_module": 175, "finit_module": 313, "iopl": 172,
                     "ioperm": 173, "quotactl": 179, "acct": 163, "swapon": 167, "fanotify_init": 300,
                     "memfd_secret": 447, "process_madvise": 440, "sethostname": 170, "vhangup": 153,
                     "settimeofday": 164, "adjtimex": 159}.items():
    reached(name, number, 0, 0, 0, 0, 0)
reached("personality", 135, 0xFFFFFFFF)
""",
        (WRONG,),
        shows="refused userfaultfd",
        machine="x86_64",
    ),
    Attack(
        "72 device nodes",
        ATTEMPTS
        + """
import stat
tried("block", os.mknod, "/tmp/block", stat.S_IFBLK | 0o666, os.makedev(254, 0))
tried("memory", os.mknod, "/tmp/memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
""",
        (WRONG,),
        shows="refused block",
    ),
    Attack(
        "73 types into a terminal",
        ATTEMPTS
        + """
import fcntl
for number in range(4):
    tried("TIOCSTI", fcntl.ioctl, number, 0x5412, b"x")
    tried("TIOCLINUX", fcntl.ioctl, number, 0x541C, b"\\x03")
tried("ctty", os.open, "/dev/tty", os.O_RDWR)
""",
        (WRONG,),
        shows="refused TIOCSTI",
    ),
]

MACHINE_CODE = (
    ATTEMPTS
    + """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("@CODE@"))
entry = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print("calling", flush=True)
answer = entry()
if answer > 0:
    breach("machine code", answer)
else:
    print("refused machine code", answer, flush=True)
"""
)

CODE = [
    Attack(
        "68 system calls of the 32-bit interface",
        MACHINE_CODE.replace("@CODE@", "b814000000cd80c3"),  # mov eax, 20 (getpid); int 0x80; ret
        (CRASHED,),
        shows="calling",
        machine="x86_64",
    ),
    Attack(
        "69 system calls of the x32 interface",
        MACHINE_CODE.replace("@CODE@", "b8270000400f05c3"),  # mov eax, 0x40000027 (getpid); syscall; ret
        (CRASHED, WRONG),
        shows="calling",
        machine="x86_64",
    ),
    Attack(
        "70 other programs",
        SYSTEM_CALLS
        + """
import glob, subprocess
greeting = "print('THR' + 'OUGH', 'exec', flush=True)"
for path in ["/bin/sh", "/usr/bin/sh", "/bin/bash", "/bin/true"]:
    tried(path, subprocess.check_call, [path, "-c", "true"])
for path in {sys.executable or "/usr/bin/python3", *glob.glob("/usr/bin/python3*")}:
    tried("spawn", os.posix_spawn, path, [path, "-c", greeting], {})
    tried("exec", os.execv, path, [path, "-I", "-S", "-c", greeting])
for loader in glob.glob("/lib64/ld-linux*"):
    tried("loader", os.execv, loader, [loader, sys.executable or "/usr/bin/python3", "-c", greeting])
""",
        (WRONG,),
        shows="refused exec",
    ),
    Attack(
        "70 a shell",
        ATTEMPTS + "import subprocess\ntried('shell', subprocess.check_output, ['/bin/sh', '-c', 'echo reached'])\n",
        (WRONG,),
        shows="refused shell",
    ),
    Attack(
        "71 a library from /tmp",
        ATTEMPTS
        + """
import ctypes, glob, shutil
folders = ("/lib", "/lib64", "/usr/lib", "/lib/*", "/usr/lib/*")
library = [path for folder in folders for path in glob.glob(folder + "/libm.so*")][0]
shutil.copyfile(library, "/tmp/planted.so")
tried("library", ctypes.CDLL, "/tmp/planted.so")
""",
        (WRONG,),
        shows="refused library",
    ),
    Attack(
        "71 a program in /tmp",
        ATTEMPTS
        + """
open("/tmp/planted", "w").write("#!/bin/sh\\necho reached\\n")
os.chmod("/tmp/planted", 0o4777)
tried("program", os.execv, "/tmp/planted", ["planted"])
""",
        (WRONG,),
        shows="refused program",
    ),
]
