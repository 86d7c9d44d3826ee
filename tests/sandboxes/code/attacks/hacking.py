"""Attacks on the verdict by a program that leaves early, lies about its values, or patches what judges it."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    CALLED,
    CRASHED,
    TIMEOUT,
    UNPARSABLE,
    WAITING,
    WRONG,
    Attack,
    limited,
)

EXITS = [
    Attack("76 sys.exit(0) when imported", "import sys\nsys.exit(0)\n", (WRONG,), ALL_MODES),
    Attack("77 os._exit(0) when imported", "import os\nos._exit(0)\n", (WRONG, CRASHED), ALL_MODES),
    Attack("78 sys.exit(0) in the function", "import sys\ndef solve(n):\n    sys.exit(0)\n", (WRONG,), ALL_MODES),
    Attack(
        "79 os._exit(0) in the function", "import os\ndef solve(n):\n    os._exit(0)\n", (WRONG, CRASHED), ALL_MODES
    ),
    Attack("98 raises AssertionError", "def solve(n):\n    raise AssertionError\n", (WRONG,), ALL_MODES),
    Attack("99 raises StopIteration", "def solve(n):\n    raise StopIteration\n", (WRONG,), CALLED),
    Attack("99 raises GeneratorExit", "def solve(n):\n    raise GeneratorExit\n", (WRONG,), CALLED),
    Attack("99 raises KeyboardInterrupt", "def solve(n):\n    raise KeyboardInterrupt\n", (WRONG,), CALLED),
    Attack(
        "99 StopIteration by another name",
        "class Odd(StopIteration, ValueError):\n    pass\ndef solve(n):\n    raise Odd\n",
        (WRONG,),
        CALLED,
    ),
    Attack(
        "99 raises when it is raised",
        """
        class Odd(Exception):
            def __str__(self):
                raise SystemExit(0)
            __repr__ = __reduce__ = __str__
        Odd.__name__ = Odd.__qualname__ = "StopIteration"
        def solve(n):
            raise Odd
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "104 excepthook that praises",
        "import sys\nsys.excepthook = lambda *_: print('PASS')\nraise SystemError('PASS')\n",
        (WRONG,),
        ALL_MODES,
    ),
]

LIARS = [
    Attack(
        "80 equal to everything",
        """
        class Equal:
            def __eq__(self, other):
                return True
            def __ne__(self, other):
                return False
            def __hash__(self):
                return 9
            __le__ = __ge__ = __lt__ = __gt__ = __contains__ = __eq__
            def __bool__(self):
                return True
        def solve(n):
            return Equal()
        """,
        (WRONG,),
        ALL_MODES,
    ),
    Attack(
        "81 an integer that lies",
        """
        class Liar(int):
            def __eq__(self, other):
                return True
            __hash__ = int.__hash__
            def __ne__(self, other):
                return False
            def __rsub__(self, other):
                return 0
            __sub__ = __rsub__
            def __index__(self):
                return 9
            __int__ = __index__
            def __reduce__(self):
                return int, (9,)
        def solve(n):
            return Liar(5)
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "82 texts and dictionaries that lie",
        """
        class Text(str):
            def __eq__(self, other):
                return True
            def __hash__(self):
                return 0
            def encode(self, *_):
                return b"wanted"
            def __str__(self):
                return "wanted"
            def __len__(self):
                return 6
        class Table(dict):
            def __eq__(self, other):
                return True
            def items(self):
                return [("wanted", 1)]
            def __iter__(self):
                return iter(["wanted"])
        def solve(n):
            return {3: Text("other"), 7: Table(other=2), 12: [Text("other")]}[n]
        """,
        (WRONG,),
        answers={3: "wanted", 7: {"wanted": 1}, 12: ["wanted"]},
    ),
    Attack(
        "82 only the last of three lies",
        """
        class Text(str):
            def __eq__(self, other):
                return True
            __hash__ = str.__hash__
        def solve(n):
            return n * n if n < 12 else Text("144")
        """,
        (WRONG,),
    ),
    Attack("100 not a number", "def solve(n):\n    return float('nan')\n", (WRONG,), ALL_MODES),
    Attack("100 infinite", "def solve(n):\n    return float('inf')\n", (WRONG,), ALL_MODES),
    Attack("100 true for one", "def solve(n):\n    return True\n", (WRONG,), answers={1: 1, 2: 1}),
    Attack("100 one for true", "def solve(n):\n    return 1\n", (WRONG,), answers={1: True, 2: True}),
    Attack(
        "97 an integer of two million digits",
        "def solve(n):\n    return 1 << 6_600_000\n",
        (WRONG,),
        ALL_MODES,
    ),
    Attack(
        "96 keys that collide",
        "table = {number * (2**61 - 1): 1 for number in range(2000)}\ndef solve(n):\n    return table\n",
        (WRONG,),
        CALLED,
        limits=limited(cpu=2.0, case_cpu=2.0),
    ),
    Attack(
        "94 a list 400,000 deep",
        """
        def solve(n):
            nested = []
            for _ in range(400_000):
                nested = [nested]
            return nested
        """,
        (WRONG, CRASHED, TIMEOUT),
        CALLED,
    ),
    Attack(
        "94 a list that holds itself",
        "def solve(n):\n    nested = []\n    nested.append(nested)\n    return nested\n",
        (WRONG,),
        CALLED,
    ),
]

PATCHES = [
    Attack(
        "83 builtins that agree",
        """
        import builtins
        builtins.all = builtins.any = builtins.isinstance = builtins.callable = lambda *_: True
        builtins.len = builtins.abs = builtins.hash = lambda *_: 0
        builtins.AssertionError = builtins.Exception = type("Never", (BaseException,), {})
        builtins.type = lambda *_: int
        builtins.__import__ = lambda *_: None
        def solve(n):
            return None
        """,
        (WRONG, TIMEOUT),
        ALL_MODES,
        limits=WAITING,
    ),
    Attack(
        "84 unittest that agrees",
        """
        import unittest
        for name in dir(unittest.TestCase):
            if name.startswith("assert"):
                setattr(unittest.TestCase, name, lambda *_, **__: None)
        unittest.main = unittest.TextTestRunner = lambda *_, **__: None
        """
        + "\ndef solve(n):\n    return None\n",
        (WRONG, UNPARSABLE),
        ALL_MODES,
        limits=limited(cpu=2.0, case_cpu=2.0),
    ),
    Attack(
        "101 finders that agree",
        """
        import sys
        class Finder:
            def find_spec(self, name, path=None, target=None):
                raise SystemExit(0)
        sys.meta_path[:] = [Finder()]
        sys.path_hooks[:] = []
        sys.modules.clear()
        def solve(n):
            return None
        """,
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "102 no builtins at all",
        "import builtins\nfor name in list(vars(builtins)):\n    delattr(builtins, name)\n",
        (WRONG, CRASHED),
        ALL_MODES,
    ),
    Attack(
        "103 traces every frame",
        """
        import sys, threading
        def trace(frame, event, argument):
            for name in ("expected", "want", "result", "ok", "passed", "status", "verdict", "equal"):
                if name in frame.f_locals:
                    frame.f_locals[name] = True
            return trace
        sys.settrace(trace)
        sys.setprofile(trace)
        threading.settrace(trace)
        frame = sys._getframe()
        while frame:
            frame.f_trace = trace
            frame = frame.f_back
        def solve(n):
            return None
        """,
        (WRONG,),
        ALL_MODES,
    ),
]
