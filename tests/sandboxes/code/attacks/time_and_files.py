"""Attacks on time, disk and channels: what never ends, fills a disk, floods a pipe or falls over."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    ATTEMPTS,
    CALLED,
    CRASHED,
    HONEST,
    MEMORY,
    RIGHT,
    TIMEOUT,
    WAITING,
    WRONG,
    Attack,
    limited,
)

SPIN = "while True:\n    pass\n"
TIME = [
    Attack("12 a power of 10^9 digits", "x = 10 ** (10 ** 9)\n", (TIMEOUT, MEMORY)),
    Attack("15 endless loop", SPIN, (TIMEOUT,), ALL_MODES),
    Attack(
        "15 endless loop in the function",
        "def solve(n):\n    while True:\n        pass\n",
        (TIMEOUT,),
        CALLED,
    ),
    Attack(
        "16 loop in C that looks at no signal",
        "import itertools\nsum(itertools.repeat(0))\n",
        (TIMEOUT,),
    ),
    Attack("17 sleep", "import time\ntime.sleep(1000)\n", (TIMEOUT,), ("calls", "stdio"), limits=WAITING),
    Attack(
        "17 sleep in the function",
        "import time\ndef solve(n):\n    time.sleep(1000)\n",
        (TIMEOUT,),
        CALLED,
        limits=WAITING,
    ),
    Attack(
        "18 every signal ignored and blocked",
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True:
            pass
        """,
        (TIMEOUT,),
    ),
    Attack(
        "19 handlers that swallow everything",
        """
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
        """,
        (TIMEOUT,),
    ),
    Attack("34 regular expression that backtracks", "import re\nre.match('(a+)+$', 'a' * 64 + 'b')\n", (TIMEOUT,)),
    Attack(
        "40 endless loop at exit",
        HONEST + "import atexit\n@atexit.register\ndef spin():\n    while True:\n        pass\n",
        (RIGHT,),
        CALLED,
    ),
    Attack(
        "41 endless finaliser",
        HONEST + "class Endless:\n    def __del__(self):\n        while True:\n            pass\nkept = Endless()\n",
        (RIGHT,),
        CALLED,
    ),
    Attack(
        "42 colliding keys",
        "held = {number * (2**61 - 1): 1 for number in range(10**6)}\n",
        (TIMEOUT,),
    ),
    Attack(
        "46 stops itself",
        "import os, signal, time\nwhile True:\n    os.kill(os.getpid(), signal.SIGSTOP)\n    time.sleep(0.1)\n",
        (TIMEOUT,),
        limits=WAITING,
    ),
]

FILES = [
    Attack(
        "24 a file of 100 GB",
        ATTEMPTS
        + """
size = 0
try:
    with open("/tmp/large", "wb", buffering=0) as file:
        while size < 100 << 30:
            size += file.write(bytes(1 << 20))
except OSError as error:
    print("refused at", size >> 20, "MiB", error.errno)
if size > 17 << 20:
    breach("large file", size)
""",
        (WRONG,),
        shows="refused at",
    ),
    Attack(
        "25 many files of 512 KiB",
        ATTEMPTS
        + """
size = 0
try:
    for number in range(200):
        with open(f"/tmp/{number}", "wb", buffering=0) as file:
            size += file.write(bytes(512 << 10))
except OSError as error:
    print("refused at", size >> 10, "KiB", error.errno)
if size > 17 << 20:
    breach("many files", size)
""",
        (WRONG,),
        shows="refused at",
    ),
    Attack(
        "26 inodes",
        ATTEMPTS
        + """
count = 0
try:
    for count in range(5000):
        os.close(os.open(f"/tmp/{count}", os.O_CREAT | os.O_WRONLY))
except OSError as error:
    print("refused at", count, error.errno)
if count > 1100:
    breach("inodes", count)
""",
        (WRONG,),
        shows="refused at",
    ),
    Attack(
        "27 writing anywhere but /tmp",
        ATTEMPTS
        + """
places = ["/", "/dev", "/dev/shm", "/usr", "/usr/lib", "/lib", "/bin", "/etc", "/var", "/var/tmp", "/run", "/home"]
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
places += {os.path.dirname(file) for file in files if file}
places += [place for place in sys.path if place]
for place in places:
    tried(place, os.open, os.path.join(place, "planted"), os.O_CREAT | os.O_WRONLY)
""",
        (WRONG,),
        shows="refused /usr",
    ),
    Attack(
        "28 deep directories",
        ATTEMPTS
        + """
depth = 0
os.chdir("/tmp")
try:
    for depth in range(5000):
        os.mkdir("d")
        os.chdir("d")
except OSError as error:
    print("refused at", depth, error.errno)
if depth > 1100:
    breach("directories", depth)
""",
        (WRONG,),
        shows="refused at",
    ),
    Attack(
        "43 file descriptors",
        ATTEMPTS
        + """
count = 0
try:
    for count in range(5000):
        os.dup(0)
except OSError as error:
    print("refused at", count, error.errno)
if count > 70:
    breach("descriptors", count)
""",
        (WRONG,),
        shows=r"refused at \d+ 24",
    ),
]

FLOODS = [
    Attack("29 gigabytes of output", "while True:\n    print('x' * 65536)\n", (CRASHED,), ALL_MODES),
    Attack(
        "30 gigabytes of errors",
        "import sys\nwhile True:\n    sys.stderr.write('x' * 65536)\n",
        (CRASHED,),
        ALL_MODES,
    ),
    Attack(
        "31 gigabytes on every descriptor",
        """
        import os
        for number in range(3, 64):
            try:
                os.set_blocking(number, False)
            except OSError:
                pass
        while True:
            for number in range(3, 64):
                try:
                    os.write(number, bytes(65536))
                except OSError:
                    pass
        """,
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
    ),
    Attack(
        "32 a result of 100 MB",
        "def solve(n):\n    return 'x' * (100 << 20)\n",
        (WRONG, MEMORY, TIMEOUT),
        CALLED,
        limits=limited(memory=512 << 20, cpu=2.0, case_cpu=2.0),
    ),
    Attack(
        "33 bytes that trickle into every descriptor",
        """
        import os, time
        def solve(n):
            while True:
                for number in range(3, 64):
                    try:
                        os.write(number, bytes(1))
                    except OSError:
                        pass
                time.sleep(0.01)
        """,
        (WRONG, TIMEOUT),
        CALLED,
        limits=WAITING,
    ),
    Attack(
        "44 closes everything and spins",
        "import os\nos.closerange(0, 64)\n" + SPIN,
        (WRONG, TIMEOUT),
        ALL_MODES,
    ),
    Attack(
        "45 closes everything and leaves",
        "import os\nos.closerange(0, 64)\nos._exit(0)\n",
        (WRONG,),
        ALL_MODES,
    ),
    Attack("47 reads address 0", "import ctypes\nctypes.string_at(0)\n", (CRASHED,), ALL_MODES),
    Attack("48 abort", "import os\nos.abort()\n", (CRASHED,), CALLED),
    Attack(
        "49 leaves a core file",
        """
        import os, resource
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
        except Exception as error:
            print("refused core", error, flush=True)
        os.abort()
        """,
        (CRASHED,),
    ),
    Attack(
        "50 raises its limits",
        ATTEMPTS
        + """
import resource
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        soft, hard = resource.getrlimit(getattr(resource, name))
        if hard != resource.RLIM_INFINITY:
            tried(name, resource.setrlimit, getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            tried(name, resource.setrlimit, getattr(resource, name), (hard + 1, hard + 1))
        else:
            print("unlimited", name)
""",
        (WRONG,),
        shows="refused RLIMIT_AS",
    ),
    Attack(
        "51 a higher priority",
        ATTEMPTS
        + "tried('nice', os.nice, -5)\ntried('fifo', os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))\n",
        (WRONG,),
        shows="refused nice",
    ),
]
