"""Honest programs that use much of what there is to use: each must be right, walls or not."""

from gemsmith.sandboxes.code.jobs import Limits
from tests.sandboxes.code.attacks.attack import ALL_MODES, CALLED, HONEST, RIGHT, Attack

USUAL = Limits()

FEATURES = {
    "asyncio": """
        import asyncio
        async def square(n):
            await asyncio.sleep(0.001)
            return n * n
        def solve(n):
            return asyncio.run(square(n))
        """,
    "threads": """
        from concurrent.futures import ThreadPoolExecutor
        import threading
        lock = threading.Lock()
        def solve(n):
            with ThreadPoolExecutor(8) as pool:
                return sum(pool.map(lambda _: n, range(n)))
        """,
    "a thread with a deep stack": """
        import sys, threading
        sys.setrecursionlimit(10**6)
        threading.stack_size(64 << 20)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def solve(n):
            found = []
            thread = threading.Thread(target=lambda: found.append(depth(50_000)))
            thread.start()
            thread.join()
            return n * n if found == [50_000] else None
        """,
    "deep recursion": """
        import sys
        sys.setrecursionlimit(30_000)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def solve(n):
            return n * n if depth(20_000) == 20_000 else None
        """,
    "a data class with postponed annotations": """
        from __future__ import annotations
        import dataclasses, enum, typing
        @dataclasses.dataclass(order=True)
        class Square:
            side: int
            names: typing.ClassVar[list[str]] = []
            def area(self) -> int:
                return self.side * self.side
        class Kind(enum.Enum):
            PLAIN = 1
        class Pair(typing.NamedTuple):
            first: int
            second: int = 0
        def solve(n: int) -> int:
            assert typing.get_type_hints(Square)["side"] is int
            return Square(n).area() * Kind.PLAIN.value + Pair(0).second
        """,
    "pickle and copies of its own classes": """
        import copy, pickle
        class Square:
            def __init__(self, side):
                self.side = side
        def solve(n):
            return pickle.loads(pickle.dumps(copy.deepcopy(Square(n)))).side * n
        """,
    "a file in /tmp": """
        import os, tempfile
        def solve(n):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "square")
                with open(path, "w") as file:
                    file.write(str(n * n))
                return int(open(path).read())
        """,
    "a timer and a signal": """
        import signal, time
        def solve(n):
            hit = []
            signal.signal(signal.SIGALRM, lambda *_: hit.append(n))
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            time.sleep(0.05)
            return n * hit[0]
        """,
    "much of the standard library": """
        import bisect, calendar, collections, datetime, decimal, difflib, fractions, functools, hashlib, heapq
        import itertools, json, math, operator, random, re, secrets
        import statistics, string, time, uuid, zlib
        def solve(n):
            assert len(hashlib.sha256(b"x").hexdigest()) == 64 and uuid.uuid4() and secrets.token_hex(4)
            assert datetime.datetime.now().year > 2000 and time.strftime("%Y") and random.random() < 1
            return int(math.prod([decimal.Decimal(n), fractions.Fraction(n)][i] * 1 for i in (0,))) * n
        """,
    "sqlite, csv, xml and an own module": """
        import csv, io, sqlite3, types
        from xml.etree import ElementTree
        module = types.ModuleType("own")
        exec("def square(n):\\n    return n * n", module.__dict__)
        def solve(n):
            base = sqlite3.connect(":memory:")
            assert list(csv.reader(io.StringIO("a,b"))) == [["a", "b"]] and ElementTree.fromstring("<a/>").tag == "a"
            return base.execute("select ? * ?", (n, n)).fetchone()[0]
        """,
    "an address space of 300 MB": "def solve(n):\n    return len(bytes(300 << 20)) // (300 << 20) * n * n\n",
    "a name for the main program": HONEST + "if __name__ == '__main__':\n    import sys\n    assert sys.argv\n",
}
FEATURED = [Attack(f"honest: {name}", program, (RIGHT,), ALL_MODES, limits=USUAL) for name, program in FEATURES.items()]

SCRIPTS = {
    "exit() at its end": "n = int(input())\nprint(n * n)\nexit()\n",
    "quit(0) and sys.exit()": "import sys\nprint(int(input()) ** 2)\nquit(0) if len(sys.argv) < 9 else sys.exit()\n",
    "open(0)": "print(int(open(0).read()) ** 2)\n",
    "sys.stdin.buffer": "import sys\nprint(int(sys.stdin.buffer.readline()) ** 2)\n",
    "os.read and os.write": "import os\nos.write(1, b'%d\\n' % int(os.read(0, 100)) ** 2)\n",
    "fileinput": "import fileinput\nprint(*(int(line) ** 2 for line in fileinput.input()))\n",
    "input() to the end": "try:\n    while True:\n        print(int(input()) ** 2)\nexcept EOFError:\n    pass\n",
    "a main function": "def main():\n    print(int(input()) ** 2)\nif __name__ == '__main__':\n    main()\n",
    "output that is flushed at exit": "import sys\nsys.stdout = open(1, 'w')\nprint(int(input()) ** 2)\n",
    "output at exit": "import atexit\nn = int(input())\natexit.register(lambda: print(n * n))\n",
    "a thread that prints": "import threading as t\nn = int(input())\nt.Thread(target=lambda: print(n * n)).start()\n",
    "pickle": "import pickle\nclass A:\n    pass\npickle.loads(pickle.dumps(A()))\nprint(int(input()) ** 2)\n",
}
SCRIPTED = [
    Attack(f"honest: {name}", program, (RIGHT,), ("stdio",), bare=True, limits=USUAL)
    for name, program in SCRIPTS.items()
]

KEPT = [
    Attack(
        "honest: what one call leaves to the next",
        "seen = []\ndef solve(n):\n    seen.append(n)\n    return len(seen)\n",
        (RIGHT,),
        CALLED,
        answers={5: 1, 6: 2, 7: 3},
        test="assert [solve(n) for n in range(3)] == [1, 2, 3]\n",
    ),
    Attack(
        "honest: every kind of plain data",
        "def solve(n):\n    return n\n",
        (RIGHT,),
        ("check",),
        test="values = [None, True, 0, -1, 2**70, 1.5, float('inf'), 'é', '', b'x', (1,), [[]], {1: {2}},\n"
        "          {(1, 2): 3}, frozenset({1}), 1j, bytearray(b'y')]\n"
        "for value in values:\n    found = solve(value)\n    assert found == value and type(found) is type(value)\n",
    ),
]

FAIR = [*FEATURED, *SCRIPTED, *KEPT]
