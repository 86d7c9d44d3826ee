"""Attacks of our own on the job that comes next, and on memory that no address space counts."""

from tests.sandboxes.code.attacks.attack import ATTEMPTS, SYSTEM_CALLS, TIMEOUT, WRONG, Attack, limited

ROOMY = limited(cpu=2.0, case_cpu=2.0)

BUFFERS = [
    Attack(
        "181 memory in the queue of a listener",
        ATTEMPTS
        + """
import socket, time
held = 0
try:
    listeners = []
    for index in range(8):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"\\0queue{index}")
        listener.listen(4096)
        listeners.append(listener)
    until = time.process_time() + 0.3
    while time.process_time() < until and held < 128 << 20:
        for index in range(8):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            client.connect(f"\\0queue{index}")
            try:
                while True:
                    held += client.send(bytes(65536))
            except BlockingIOError:
                pass
            client.close()
except OSError as error:
    print("refused", type(error).__name__, error.errno)
print("held", held >> 20, "MiB")
if held > 64 << 20:
    breach("queue", held)
""",
        (WRONG,),
        shows=r"held \d+ MiB",
        limits=ROOMY,
    ),
    Attack(
        "182 memory in the queues of datagrams",
        ATTEMPTS
        + """
import socket, time
held, kept = 0, []
try:
    until = time.process_time() + 0.3
    while time.process_time() < until and held < 128 << 20:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(f"\\0queue{len(kept)}")
        kept.append(receiver)
        for _ in range(20):
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sender.setblocking(False)
            try:
                while True:
                    held += sender.sendto(bytes(180_000), f"\\0queue{len(kept) - 1}")
            except BlockingIOError:
                pass
            sender.close()
except OSError as error:
    print("refused", type(error).__name__, error.errno)
print("held", held >> 20, "MiB")
if held > 64 << 20:
    breach("queue", held)
""",
        (WRONG,),
        shows=r"held \d+ MiB",
        limits=ROOMY,
    ),
    Attack(
        "183 memory in locks",
        ATTEMPTS
        + """
import fcntl, time
held = 0
until = time.process_time() + 0.3
try:
    while time.process_time() < until:
        file = open(f"/tmp/{held}", "wb")
        for index in range(2000):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2 * index)
            held += 1
        kept = globals().setdefault("kept", [])
        kept.append(file)
except OSError as error:
    print("refused", error.errno)
print("held", held, "locks")
if held > 1_000_000:
    breach("locks", held)
""",
        (WRONG,),
        shows=r"held \d+ locks",
        limits=ROOMY,
    ),
    Attack(
        "184 memory in queues of notices",
        SYSTEM_CALLS
        + """
import time
held = 0
try:
    watchers = [system_call(294, 0x800) for _ in range(20)]
    for watcher in watchers:
        system_call(254, watcher, b"/tmp", 0xFFF)
    until = time.process_time() + 0.3
    names = ["/tmp/" + letter * 250 for letter in "ab"]
    open(names[0], "w").close()
    while time.process_time() < until:
        os.rename(*names)
        names.reverse()
        held += 2 * 300 * len(watchers)
except OSError as error:
    print("refused", error.errno)
print("held", held >> 20, "MiB")
if held > 64 << 20:
    breach("notices", held)
""",
        (WRONG,),
        shows=r"refused 1\b",
        limits=ROOMY,
        machine="x86_64",
    ),
    Attack(
        "185 memory in rules of Landlock",
        SYSTEM_CALLS
        + "reached('create', 444, 0, 0, 1)\nreached('add', 445, 0, 1, 0, 0)\nreached('restrict', 446, 0, 0)\n",
        (WRONG,),
        shows="refused create",
        machine="x86_64",
    ),
]

NEIGHBOURS = [
    Attack(
        "159 descriptors that are kept in flight",
        ATTEMPTS
        + """
import array, socket
held, kept = 0, []
try:
    while True:
        left, right = socket.socketpair()
        kept += [left, right]
        while True:
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            try:
                while True:
                    held += os.write(writer, bytes(65536))
            except BlockingIOError:
                pass
            left.setblocking(False)
            left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader]).tobytes())])
            os.close(reader)
            os.close(writer)
except (BlockingIOError, OSError) as error:
    print("refused after", held >> 20, "MiB", type(error).__name__, error.errno)
if held > 64 << 20:
    breach("in flight", held)
""",
        (WRONG,),
        shows="refused after",
    ),
    Attack(
        "160 memory in all places at once",
        ATTEMPTS
        + """
held = []
try:
    while True:
        held.append(bytearray(b"x") * (1 << 20))
except MemoryError:
    held.pop()
size = len(held) + 1
try:
    with open("/tmp/more", "wb", buffering=0) as file:
        while True:
            size += file.write(held[0]) >> 20
except (OSError, MemoryError):
    pass
print("held", size, "MiB")
if size > 192 + 17:
    breach("memory", size)
""",
        (WRONG,),
        shows=r"held \d+ MiB",
        limits=ROOMY,
    ),
    Attack(
        "161 a socket in /tmp and a lock on a library wait for the next job",
        ATTEMPTS
        + """
import fcntl, socket
library = os.open(os.__file__, os.O_RDONLY)
fcntl.flock(library, fcntl.LOCK_EX | fcntl.LOCK_NB)
try:
    server = socket.socket(socket.AF_UNIX)
    server.bind("\\0gemsmith-neighbour")
    server.listen()
except OSError as error:
    print("refused socket", error.errno)
print("waiting", flush=True)
""",
        (WRONG,),
        shows="waiting",
    ),
    Attack(
        "161 the next job looks for it",
        ATTEMPTS
        + """
import fcntl, socket
tried("socket", lambda: socket.socket(socket.AF_UNIX).connect("\\0gemsmith-neighbour"))
try:
    fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    breach("lock")
if os.listdir("/tmp"):
    breach("files", os.listdir("/tmp"))
""",
        (WRONG,),
        shows="refused socket",
    ),
    Attack(
        "162 the name of the host",
        ATTEMPTS
        + """
import platform
names = [os.uname().nodename, platform.node()]
print("named", names)
if "@HOSTNAME@" in names:
    breach("name")
""",
        (WRONG,),
        shows="named",
    ),
    Attack(
        "163 the jail's own modules",
        ATTEMPTS
        + """
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())} | set(sys.path)
for file in sorted(file for file in files if file and not file.startswith(("/usr/lib", "/lib"))):
    folder = os.path.dirname(os.path.abspath(file))
    if os.path.isdir(folder):
        print("own", file, os.listdir(folder))
        for name in os.listdir(folder):
            tried(name, os.unlink, os.path.join(folder, name))
            tried(name, os.rename, os.path.join(folder, name), os.path.join(folder, "moved"))
            tried(name, os.open, os.path.join(folder, name), os.O_RDWR)
            tried(name, os.truncate, os.path.join(folder, name), 0)
print("done")
""",
        (WRONG,),
        shows="done",
    ),
    Attack(
        "186 folders that the jail shows empty, and any other",
        ATTEMPTS
        + """
import stat
seen = 0
for folder, folders, files in os.walk("/"):
    if folder == "/tmp":
        folders.clear()
        continue
    seen += 1
    try:
        os.chmod(folder, 0o777)
    except OSError:
        pass
    else:
        breach("mode", folder)
    for name in ("planted", "planted.py"):
        try:
            os.mkdir(os.path.join(folder, name))
        except OSError:
            pass
        else:
            breach("folder", folder)
print("tried", seen, "folders")
""",
        (WRONG,),
        shows=r"tried \d+ folders",
        limits=ROOMY,
    ),
    Attack(
        "187 flags of descriptors wait for the next job",
        ATTEMPTS
        + """
import fcntl
for descriptor in (0, 1, 2):
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("set", flush=True)
""",
        (WRONG,),
        shows="set",
    ),
    Attack(
        "187 the next job looks for them",
        ATTEMPTS
        + """
import fcntl
for descriptor in (0, 1, 2):
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    print("flags", descriptor, flags)
    if flags & os.O_APPEND:
        breach("flags", flags)
try:
    fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    breach("lock")
""",
        (WRONG,),
        shows="flags 0",
    ),
    Attack(
        "188 sleeps through most of each case's wall time",
        "import time\ntime.sleep(1.0)\nprint(int(input()) ** 2)\n",
        (TIMEOUT,),
        ("stdio",),
        bare=True,
        limits=limited(wall_factor=1.0),
        answers={n: n * n for n in range(4)},
    ),
]

NEIGHBOURHOOD = [*BUFFERS, *NEIGHBOURS]
