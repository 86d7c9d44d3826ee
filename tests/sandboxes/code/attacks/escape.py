"""Attacks on the walls: files, secrets and the network.

A program earns the reward if one of its attempts gets through, and prints THROUGH. `CONTROL` names attacks that do
get through where there is no sandbox: they prove that the suite can see.
"""

from tests.sandboxes.code.attacks.attack import (
    ATTEMPTS,
    CRASHED,
    SYSTEM_CALLS,
    TIMEOUT,
    WAITING,
    WRONG,
    Attack,
    limited,
)

# Looks for a text in this process's memory without knowing its map: write(2) answers EFAULT where there is none.
SCAN = (
    SYSTEM_CALLS
    + """
import gc, re, tempfile

wanted = re.compile(bytes(reversed(b"@REVERSED@")) + b"-[0-9a-f]{32}")
libc.sbrk.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_long]
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
libc.write.restype = ctypes.c_ssize_t

def memory():
    reader, writer = os.pipe()
    top = libc.sbrk(0)
    spans = {(top - (32 << 20), top)}
    for thing in gc.get_objects():
        start = id(thing) >> 20 << 20
        spans.add((start, start + (1 << 20)))
    spans.add((id(spans) >> 20 << 20, (id(spans) >> 20 << 20) + (1 << 20)))
    stack = ctypes.addressof(ctypes.c_int()) >> 20 << 20
    spans.add((stack, stack + (1 << 20)))
    for start, end in sorted(spans):
        tail = b""
        for address in range(start, end, 4096):
            if libc.write(writer, address, 4096) == 4096:
                page = os.read(reader, 4096)
                yield tail + page
                tail = page[-64:]
            else:
                tail = b""

def scan():
    pages = 0
    for page in memory():
        pages += 1
        found = wanted.search(page)
        if found:
            return found.group().decode()
    print("read", pages, "pages and found nothing", flush=True)
    return None
"""
)


def scan_for(prefix: str) -> str:
    """The scanner for a text that begins so, which does not hold the text itself."""
    return SCAN.replace("@REVERSED@", prefix[::-1])


SECRETS = [
    Attack(
        "52 files of the host",
        ATTEMPTS
        + """
for path in ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/proc/self/environ", "/proc/self/maps", "/proc/1/root",
             "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/vsock", "/dev/fuse", "/dev/kvm", "/dev/tty", "@CANARY@"]:
    tried(path, os.open, path, os.O_RDONLY)
tried("write the canary", os.open, "@CANARY@", os.O_WRONLY)
for path in ["/root", "/home", "/sys", "/proc", "/etc", "/var", "/run", "/mnt", "/work", os.path.dirname("@CANARY@")]:
    tried(path, os.listdir, path)
""",
        (WRONG,),
        ("calls", "stdio", "check"),
        shows="refused /etc/shadow",
    ),
    Attack(
        "53 what / holds",
        ATTEMPTS
        + """
found = set(os.listdir("/"))
print("found", sorted(found), sorted(os.listdir("/usr/bin")) if os.path.isdir("/usr/bin") else "")
if found - {"bin", "dev", "lib", "lib32", "lib64", "opt", "sbx", "tmp", "usr"}:
    breach("root", found)
if os.path.isdir("/usr/bin") and [name for name in os.listdir("/usr/bin") if not name.startswith("python")]:
    breach("programs", os.listdir("/usr/bin"))
if set(os.listdir("/dev")) - {"null", "zero", "random", "urandom"}:
    breach("devices", os.listdir("/dev"))
""",
        (WRONG,),
        shows="found",
    ),
    Attack(
        "54 secrets in the environment",
        SYSTEM_CALLS
        + """
words = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
raw, index = [], 0
while words and words[index]:
    raw.append(words[index])
    index += 1
everything = [repr(os.environ), repr(raw), repr(sys.argv), repr(sys.orig_argv), repr(sys.flags)]
print("found", everything)
if any("".join(["hid", "den-"]) in text for text in everything):
    breach("environment")
if os.environ.get("HOME", "/tmp") != "/tmp" or os.environ.get("USER"):
    breach("home")
""",
        (WRONG,),
        shows="found",
    ),
    Attack(
        "55 secrets of the trainer in memory",
        scan_for("hidden") + "found = scan()\nif found:\n    breach('secret', found)\n",
        (WRONG,),
        shows=r"read \d{3,} pages",
        limits=limited(cpu=3.0, case_cpu=3.0),
    ),
    Attack(
        "74 descriptors that were inherited",
        ATTEMPTS
        + """
import stat
for number in range(256):
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        continue
    print("open", number, oct(mode))
    if number > 3 or stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        breach("descriptor", number)
""",
        (WRONG,),
        ("calls", "stdio"),
        shows="open 0",
    ),
    Attack(
        "75 output that plays tricks on a terminal",
        r"""
        import os
        os.write(1, b"\x1b[2J\x1b]0;title\x07\x00\xff\xfe" + "\u202egnp.exe\u2066".encode())
        os.write(2, b"\x1b[8m\r\n\x9b31m")
        def solve(n):
            raise ValueError("\x1b[2J\u202e\x00" + "x" * 100000)
        """,
        (WRONG,),
        ("calls", "check"),
    ),
    Attack(
        "75 a cgroup of its own",
        ATTEMPTS
        + """
tried("cgroup", os.mkdir, "/sys/fs/cgroup/escaped")
tried("notify", os.open, "/sys/fs/cgroup/release_agent", os.O_WRONLY)
tried("cgroups", os.open, "/proc/self/cgroup", os.O_RDONLY)
""",
        (WRONG,),
        shows="refused cgroup",
    ),
    Attack(
        "61 links out of /tmp, and appending to files of the jail",
        ATTEMPTS
        + """
os.symlink("@CANARY@", "/tmp/soft")
tried("soft link", os.open, "/tmp/soft", os.O_RDONLY)
tried("soft link, writing", os.open, "/tmp/soft", os.O_WRONLY)
tried("hard link", os.link, "@CANARY@", "/tmp/hard")
tried("hard link to a library", os.link, os.__file__, "/tmp/hard")
tried("..", os.open, "/tmp/../.." + "@CANARY@", os.O_RDONLY)
for module in list(sys.modules.values()):
    if getattr(module, "__file__", None):
        tried("append", os.open, module.__file__, os.O_WRONLY | os.O_APPEND)
        tried("chmod", os.chmod, module.__file__, 0o777)
""",
        (WRONG,),
        shows="refused hard link",
    ),
    Attack(
        "62 plants for the next job",
        """
        import builtins, json, os, sys
        for name in ("json.py", "sitecustomize.py", "usercustomize.py", "typing.py"):
            open(f"/tmp/{name}", "w").write("raise SystemExit('planted')")
        builtins.len = lambda *_: 0
        builtins.range = builtins.print = builtins.compile = builtins.exec = None
        json.loads = json.dumps = lambda *_, **__: None
        sys.path.insert(0, "/tmp")
        sys.modules.clear()
        def solve(n):
            return None
        """,
        (WRONG, CRASHED, TIMEOUT),
        ("calls", "stdio", "check"),
        limits=WAITING,
    ),
]

NETWORK = [
    Attack(
        "56 a listener on the host's loopback",
        ATTEMPTS
        + """
import socket
tried("tcp", socket.create_connection, ("127.0.0.1", @PORT@), timeout=1)
tried("tcp6", socket.create_connection, ("::1", @PORT@), timeout=1)
tried("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @PORT@)))
""",
        (WRONG,),
        ("calls", "stdio", "check"),
        shows="refused tcp",
    ),
    Attack(
        "57 an abstract socket of the host",
        ATTEMPTS
        + """
import socket
def connect():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect("\\0@ABSTRACT@")
tried("abstract", connect)
""",
        (WRONG,),
        shows="refused abstract",
    ),
    Attack(
        "58 other families of sockets",
        ATTEMPTS
        + """
import socket
for name, family in {"inet": 2, "ax25": 3, "inet6": 10, "netlink": 16, "packet": 17, "rds": 21, "can": 29, "tipc": 30,
                     "bluetooth": 31, "alg": 38, "vsock": 40, "xdp": 44}.items():
    for kind in (1, 2, 3, 5):
        tried(name, socket.socket, family, kind, 0)
        if name in ("inet", "inet6"):
            tried(name + " pair", socket.socketpair, family, kind, 0)
""",
        (WRONG,),
        shows="refused vsock",
    ),
]

# These get through without a sandbox (in the outer jail of the positive control), each for a reason of its own.
CONTROL = [
    "7 memfd_create",
    "10 System V shared memory, queues and semaphores",
    "27 writing anywhere but /tmp",
    "52 files of the host",
    "53 what / holds",
    "56 a listener on the host's loopback",
    "57 an abstract socket of the host",
    "58 other families of sockets",
    "59 reads and traces processes",
    "60 sees its parent",
    "61 links out of /tmp, and appending to files of the jail",
    "63 a user namespace in the user namespace",
    "66 io_uring",
    "67 rare system calls",
    "68 system calls of the 32-bit interface",
    "70 a shell",
    "71 a library from /tmp",
    "162 the name of the host",
]
