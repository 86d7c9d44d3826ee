"""Attacks of our own on the code that runs beside a program in its process, and on the channel to the outside."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    CALLED,
    CRASHED,
    EMPTY,
    HONEST,
    MEMORY,
    RIGHT,
    TIMEOUT,
    WRONG,
    Attack,
    limited,
)

STREAMS = [
    Attack(
        "142 standard output that raises",
        """
        import sys
        class Stream:
            def write(self, text):
                raise SystemExit(0)
            flush = close = fileno = isatty = __getattr__ = lambda *_: 1 / 0
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Stream()
        def solve(n):
            return None
        """,
        (WRONG,),
        ALL_MODES,
    ),
    Attack(
        "143 descriptors that change places",
        """
        import os
        for number in range(1, 32):
            for other in range(32):
                if number != other:
                    try:
                        os.dup2(other, number)
                    except OSError:
                        pass
        def solve(n):
            return None
        """,
        (WRONG, TIMEOUT, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "143 descriptors that change places in the function",
        """
        import os
        def solve(n):
            for number in range(3, 16):
                for other in range(16):
                    try:
                        os.dup2(number, other)
                    except OSError:
                        pass
            return None
        """,
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
    ),
    Attack(
        "144 reads what is meant for the runner",
        """
        import os
        read = []
        for number in range(0, 64):
            try:
                os.set_blocking(number, False)
                while True:
                    part = os.read(number, 65536)
                    read.append(part)
                    if not part:
                        break
            except OSError:
                pass
        print("read", read, flush=True)
        def solve(n):
            return None
        """,
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
    ),
    Attack(
        "145 closes everything after the first case",
        """
        import os
        calls = []
        def solve(n):
            if calls:
                os.closerange(0, 64)
            calls.append(n)
            return n * n
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "146 a thread that floods while all answers are right",
        """
        import os, threading
        def flood():
            while True:
                os.write(1, bytes(65536))
        threading.Thread(target=flood, daemon=True).start()
        import time
        def solve(n):
            time.sleep(0.1)
            return n * n
        """,
        (CRASHED,),
        CALLED,
    ),
    Attack(
        "147 its output is kept open",
        "import os\nos.set_blocking(1, False)\nheld = [os.dup(1) for _ in range(20)]\nos.close(1)\n" + HONEST,
        (RIGHT,),
        CALLED,
    ),
]

SIGNALS = [
    Attack(
        "148 a timer that raises anywhere",
        """
        import signal
        def leave(*_):
            raise SystemExit(0)
        signal.signal(signal.SIGALRM, leave)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        def solve(n):
            return None
        """,
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "149 signals that write into every descriptor",
        """
        import signal, os
        for number in range(3, 16):
            try:
                os.set_blocking(number, False)
                signal.set_wakeup_fd(number, warn_on_full_buffer=False)
            except (OSError, ValueError):
                continue
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        def solve(n):
            return None
        """,
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
    ),
    Attack("150 kills itself", "import os\nos.kill(os.getpid(), 9)\n" + EMPTY, (WRONG, CRASHED), ALL_MODES),
    Attack(
        "150 kills itself where processes are allowed",
        """
        import os
        if os.fork() == 0:
            for number in (os.getppid(), 1, -1):
                os.kill(number, 9)
        os.wait()
        def solve(n):
            return None
        """,
        (WRONG, CRASHED),
        limits=limited(processes=4, memory=64 << 20),
    ),
    Attack(
        "151 lowers its own limits",
        """
        import resource
        def solve(n):
            for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_STACK, resource.RLIMIT_FSIZE):
                resource.setrlimit(kind, (0, 0))
            return [n] * 100_000
        """,
        (WRONG, CRASHED, MEMORY),
        CALLED,
    ),
    Attack(
        "151 a limit of one second",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True:\n    pass\n",
        (TIMEOUT, CRASHED, WRONG),
        limits=limited(cpu=3.0, case_cpu=3.0),
    ),
]

PATCHES = [
    Attack(
        "152 no recursion",
        """
        import sys
        for limit in range(5, 200):
            try:
                sys.setrecursionlimit(limit)
                break
            except RecursionError:
                pass
        def solve(n):
            return [[[[[[n]]]]]]
        """,
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "153 an audit hook that leaves",
        "import os, sys\ndef hook(*_):\n    os._exit(0)\nsys.addaudithook(hook)\n" + EMPTY,
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "154 rewrites the code that called it",
        """
        import gc, sys, types
        def agree(*_, **__):
            return True
        frame, files = sys._getframe(1), set()
        while frame:
            files.add(frame.f_code.co_filename)
            frame = frame.f_back
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType) and thing.__code__.co_filename in files:
                try:
                    thing.__code__ = agree.__code__
                except (ValueError, TypeError):
                    pass
        def solve(n):
            return None
        """,
        (WRONG, TIMEOUT, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "155 calls what it finds in the frames above",
        """
        import sys
        def solve(n):
            frame = sys._getframe(1)
            while frame:
                for thing in [*frame.f_locals.values(), *frame.f_globals.values()]:
                    if callable(thing) and not isinstance(thing, type):
                        for arguments in ((), (True,), (0, True), (n, n * n), (b"\\x01",), ("pass",)):
                            try:
                                thing(*arguments)
                            except BaseException:
                                pass
                frame = frame.f_back
            return None
        """,
        (WRONG, TIMEOUT, CRASHED, MEMORY),
        ALL_MODES,
    ),
    Attack(
        "156 a hook of the collector",
        """
        import gc, sys
        def hook(phase, information):
            frame = sys._getframe(1)
            for name in list(frame.f_locals):
                if name in ("value", "result", "reply", "answer"):
                    frame.f_locals[name] = 9
            raise SystemExit(0)
        gc.callbacks.append(hook)
        gc.set_threshold(1, 1, 1)
        def solve(n):
            return [[] for _ in range(50)]
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "157 changes the number nine in memory",
        """
        import ctypes
        ctypes.memmove(id(5) + 24, id(9) + 24, 4)
        def solve(n):
            return int("4") + 1 if n == 3 else None
        """,
        (WRONG, CRASHED),
        CALLED,
    ),
    Attack(
        "158 objects that outlive it",
        """
        import os, sys, threading, weakref
        class Late:
            def __del__(self):
                os.write(1, b"late")
                for number in range(3, 10):
                    try:
                        os.write(number, bytes(100))
                    except OSError:
                        pass
        kept = sys.modules["kept"] = Late()
        weakref.finalize(kept, os.write, 1, b"later")
        threading._register_atexit(os.write, 1, b"latest")
        def solve(n):
            return None
        """,
        (WRONG,),
        ALL_MODES,
    ),
]

MACHINERY = [*STREAMS, *SIGNALS, *PATCHES]
