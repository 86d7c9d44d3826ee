"""Attacks on the verdict by a program that looks for the expected values, or writes verdicts of its own."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    CALLED,
    CRASHED,
    EMPTY,
    RIGHT,
    TIMEOUT,
    WRONG,
    Attack,
    limited,
)
from tests.sandboxes.code.attacks.escape import scan_for

SEARCH = '''
import gc, sys

def texts(thing, depth=0, seen=set()):
    """Every text that can be reached."""
    if id(thing) in seen or depth > 6:
        return
    seen.add(id(thing))
    if isinstance(thing, (str, bytes, bytearray)):
        yield thing if isinstance(thing, str) else bytes(thing).decode("latin-1")
    elif isinstance(thing, dict):
        for key, value in list(thing.items()):
            yield from texts(key, depth + 1)
            yield from texts(value, depth + 1)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for part in list(thing):
            yield from texts(part, depth + 1)
    elif hasattr(thing, "__dict__"):
        yield from texts(vars(thing), depth + 1)

def found(places):
    for place in places:
        for text in texts(place):
            for rest in text.split("".join(["wan", "ted-"]))[1:]:
                if len(rest) >= 32 and rest[:32].isalnum():
                    return "".join(["wan", "ted-", rest[:32]])
'''

PEEKS = [
    Attack(
        "85 looks through the frames",
        SEARCH
        + """
def solve(n):
    frame, places = sys._getframe(), []
    while frame:
        places += [dict(frame.f_locals), frame.f_globals]
        for value in frame.f_locals.values():
            if isinstance(value, list):
                value.append(True)
        frame = frame.f_back
    return found(places)
""",
        (WRONG,),
        ALL_MODES,
        secret=True,
        limits=limited(cpu=3.0, case_cpu=3.0),
    ),
    Attack(
        "86 looks through every object",
        SEARCH
        + """
def solve(n):
    places = gc.get_objects()
    return found([*places, *[sys.modules[name] for name in list(sys.modules)]])
""",
        (WRONG,),
        ALL_MODES,
        secret=True,
        limits=limited(cpu=6.0, case_cpu=6.0),
    ),
    Attack(
        "86 looks through the memory",
        scan_for("wanted") + "def solve(n):\n    return scan()\n",
        (WRONG,),
        ALL_MODES,
        shows=r"read \d{3,} pages",
        secret=True,
        limits=limited(cpu=3.0, case_cpu=3.0),
    ),
    Attack(
        "86 looks at its own test through the stack of threads",
        SEARCH
        + """
import threading
def solve(n):
    return found([*sys._current_frames().values(), *map(vars, threading.enumerate())])
""",
        (WRONG,),
        CALLED,
        secret=True,
    ),
]

MARKERS = """
import os, sys
for word in ("PASS", "PASSED", "pass", "passed", "ok", "OK", "right", "1", "1.0", "True", "9", "0.0s",
             '{"status": "pass", "score": 1.0}', "all tests passed", "Ran 1 test in 0.000s\\n\\nOK"):
    for stream in (sys.stdout, sys.stderr):
        print(word, file=stream, flush=True)
"""
FRAMES = """
import json, os, pickle, struct
bodies = [json.dumps(body).encode() for body in (
    {"status": "pass"}, {"status": "right", "score": 1}, {"id": 0, "ok": True, "value": None}, [True] * 3, True, 1,
    ["pass", []], {"verdict": "pass", "cases": [True, True, True], "exit": 0}, ["ok", 0, True], ["done"])]
bodies += [pickle.dumps(True), b"pass", b"P", b"\\x01", b"ok"]
def forge():
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
        except OSError:
            continue
        for body in bodies:
            for order in ("<I", ">I", "<Q", ">Q", "<H", ">H", "B"):
                try:
                    os.write(number, struct.pack(order, len(body)) + body)
                except OSError:
                    pass
            try:
                os.write(number, body + b"\\n")
            except OSError:
                pass
"""

FORGERS = [
    Attack("87 prints the marker", MARKERS + "os._exit(0)\n", (WRONG, CRASHED), ALL_MODES),
    Attack(
        "88 prints the marker at exit",
        "import atexit\n@atexit.register\ndef praise():\n    print('PASS')\n    print(9)\nimport sys\nsys.exit(0)\n",
        (WRONG,),
        ALL_MODES,
    ),
    Attack("89 writes verdicts into every descriptor", FRAMES + "forge()\n" + EMPTY, (WRONG, CRASHED), ALL_MODES),
    Attack("90 the same, and leaves", FRAMES + "forge()\nos._exit(0)\n", (WRONG, CRASHED), ALL_MODES),
    Attack(
        "91 the same in the function",
        FRAMES + "def solve(n):\n    forge()\n    os._exit(0)\n",
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "93 random bytes in every descriptor",
        """
        import os
        def solve(n):
            for number in range(3, 64):
                try:
                    os.write(number, os.urandom(4000))
                except OSError:
                    pass
            return n * n
        """,
        (WRONG, TIMEOUT, CRASHED, RIGHT),  # with frames of a fixed descriptor only, an answer that is right stays right
        CALLED,
    ),
    Attack(
        "105 threads that write verdicts",
        FRAMES
        + """
import threading
def again():
    while True:
        forge()
threading.Thread(target=again).start()
def solve(n):
    return None
""",
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
    ),
    Attack(
        "106 two processes that answer",
        "import os\ndef solve(n):\n    return None if os.fork() else n * n\n",
        (WRONG, CRASHED),
        CALLED,
        limits=limited(processes=4, memory=64 << 20),
    ),
]
