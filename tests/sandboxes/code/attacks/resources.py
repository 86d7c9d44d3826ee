"""Attacks on what a machine has: processes and memory. All must die of a limit, and soon."""

from tests.sandboxes.code.attacks.attack import (
    ATTEMPTS,
    CRASHED,
    HONEST,
    MEMORY,
    RIGHT,
    SYSTEM_CALLS,
    TIMEOUT,
    UNPARSABLE,
    WRONG,
    Attack,
    limited,
)

PROCESSES = [
    Attack("1 fork bomb", "import os\nwhile True:\n    os.fork()\n", (WRONG,), ("calls", "stdio", "check")),
    Attack(
        "2 fork bomb where processes are allowed",
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        (TIMEOUT,),
        limits=limited(processes=8, memory=64 << 20, wall_factor=0.0),
    ),
    Attack(
        "3 thread bomb",
        """
        import threading, time
        while True:
            threading.Thread(target=time.sleep, args=(1000,)).start()
        """,
        (WRONG, MEMORY),
        ("calls", "check"),
        shows="can't start new thread|MemoryError|memory",
    ),
    Attack(
        "20 threads that are left spinning",
        """
        import threading
        def spin():
            while True:
                pass
        threading.Thread(target=spin).start()
        def solve(n):
            return n * n
        """,
        (RIGHT, TIMEOUT),
        ("calls", "check"),
    ),
    Attack(
        "21 right, then spins",
        """
        import threading
        calls = []
        def spin():
            while True:
                pass
        def solve(n):
            calls.append(n)
            if len(calls) == 3:
                threading.Thread(target=spin).start()
            return n * n
        """,
        (RIGHT,),
    ),
    Attack(
        "22 daemon by two forks that closes everything",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                while True:
                    time.sleep(1)
            os._exit(0)
        os.wait()
        def solve(n):
            return n * n
        """,
        (RIGHT,),
        limits=limited(processes=4, memory=64 << 20),
    ),
    Attack(
        "22 the same where processes are not allowed",
        """
        import os, time
        if os.fork() == 0:
            os.closerange(0, 256)
            time.sleep(1000)
        """,
        (WRONG,),
    ),
    Attack(
        "23 zombies",
        """
        import os
        while True:
            try:
                if os.fork() == 0:
                    os._exit(0)
            except OSError:
                pass
        """,
        (TIMEOUT,),
        limits=limited(processes=8, memory=64 << 20, wall_factor=0.0),
    ),
]

RAM = [
    Attack(
        "4 one bytearray after the other",
        "held = []\nwhile True:\n    held.append(bytearray(b'x') * (1 << 24))\n",
        (MEMORY,),
        ("calls", "stdio", "check"),
    ),
    Attack("5 small objects", "held = []\nwhile True:\n    held.append((len(held),))\n", (MEMORY, TIMEOUT)),
    Attack(
        "6 memory by children",
        """
        import os, time
        for _ in range(8):
            try:
                if os.fork() == 0:
                    held = bytearray(b"x") * (16 << 20)
                    time.sleep(1000)
            except OSError:
                pass
        time.sleep(1000)
        """,
        (TIMEOUT,),
        limits=limited(processes=4, memory=64 << 20, wall_factor=0.0),
    ),
    Attack("7 memfd_create", ATTEMPTS + "tried('memfd', os.memfd_create, 'x')\n", (WRONG,), shows="refused memfd"),
    Attack(
        "8 pipe buffers",
        ATTEMPTS
        + """
import fcntl
held = 0
try:
    while True:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            fcntl.fcntl(writer, 1031, 1 << 20)
        except OSError:
            pass
        try:
            while True:
                held += os.write(writer, bytes(65536))
        except BlockingIOError:
            pass
except OSError as error:
    print("refused pipes", error.errno)
print("held", held >> 20, "MiB")
if held > 64 << 20:
    breach("pipes", held)
""",
        (WRONG,),
        shows=r"refused pipes 24\s+held \d+ MiB",
    ),
    Attack(
        "9 socketpair buffers",
        ATTEMPTS
        + """
import socket
held, pairs = 0, []
try:
    while True:
        pair = socket.socketpair()
        pairs.append(pair)
        pair[0].setblocking(False)
        try:
            while True:
                held += pair[0].send(bytes(65536))
        except BlockingIOError:
            pass
except OSError as error:
    print("refused sockets", error.errno)
print("held", held >> 20, "MiB")
if held > 64 << 20:
    breach("sockets", held)
""",
        (WRONG,),
        shows=r"refused sockets 24\s+held \d+ MiB",
    ),
    Attack(
        "10 System V shared memory, queues and semaphores",
        SYSTEM_CALLS
        + "reached('shm', 29, 0, 1 << 26, 0o1600)\nreached('msg', 68, 0, 0o1600)\nreached('sem', 64, 0, 1, 0o1600)\n",
        (WRONG,),
        shows="refused shm",
        machine="x86_64",
    ),
    Attack("11 a mapping of one TiB", ATTEMPTS + "import mmap\ntried('map', mmap.mmap, -1, 1 << 40)\n", (WRONG,)),
    Attack("13 a string of 10^12", "held = 'a' * 10**12\n", (MEMORY,), ("calls", "stdio")),
    Attack(
        "14 zip bomb",
        """
        import zlib
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
        zlib.decompress(block * 4096, -15)
        """,
        (MEMORY, TIMEOUT),
    ),
    Attack(
        "35 recursion without a limit",
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(n):\n    return solve(n + 1)\n",
        (MEMORY, TIMEOUT, CRASHED),
        ("calls", "check"),
    ),
    Attack(
        "36 recursion in C",
        """
        import sys
        sys.setrecursionlimit(10**9)
        nested = []
        for _ in range(10**6):
            nested = [nested]
        repr(nested)
        """,
        (CRASHED, TIMEOUT, MEMORY),
    ),
    Attack("37 100,000 brackets", "x = " + "(" * 100_000 + ")" * 100_000, (UNPARSABLE,)),
    Attack("38 a program of 48 MB", HONEST + "#" * (48 << 20), (UNPARSABLE,)),
    Attack("39 constants that fold", "x = ((('a' * 4096) * 4096) * 4096) * 4096\n", (MEMORY, TIMEOUT)),
    Attack(
        "39 powers that fold",
        "x = " + "(" * 40 + "2" + " ** 120)" * 40 + "\n",
        (MEMORY, TIMEOUT, UNPARSABLE),
    ),
]
