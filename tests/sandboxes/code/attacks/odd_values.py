"""Attacks of our own by what a function returns, raises or does to its arguments: values that fight their encoder."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    CALLED,
    CRASHED,
    HONEST,
    MEMORY,
    RIGHT,
    TIMEOUT,
    WRONG,
    Attack,
    limited,
)

ROOMY = limited(cpu=2.0, case_cpu=2.0)

CLASSES = [
    Attack(
        "117 a class that says it is int",
        """
        class Integer:
            __class__ = int
            def __eq__(self, other):
                return True
            def __index__(self):
                return 9
            __int__ = __hash__ = __index__
        def solve(n):
            return Integer()
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "118 a metaclass that says it is int",
        """
        class Meta(type):
            def __eq__(self, other):
                return True
            def __hash__(self):
                return hash(int)
            def __instancecheck__(self, other):
                return True
            def mro(self):
                return [self, object]
        Thing = Meta("int", (), {"__eq__": lambda *_: True, "__module__": "builtins"})
        def solve(n):
            return Thing()
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "119 a list that is another when it is read again",
        """
        class Fickle(list):
            reads = 0
            def __iter__(self):
                Fickle.reads += 1
                return iter([9] if Fickle.reads > 1 else [0])
            def __len__(self):
                return 1
            def __getitem__(self, index):
                return 9
        def solve(n):
            return Fickle([5])
        """,
        (WRONG,),
        answers={3: [9], 7: [9]},
    ),
    Attack(
        "120 a float that lies",
        """
        class Near(float):
            def __sub__(self, other):
                return 0.0
            __rsub__ = __abs__ = __sub__
            def __eq__(self, other):
                return True
            __hash__ = float.__hash__
            def __float__(self):
                return 9.0
            def hex(self):
                return "0x1.2p+3"
            def __repr__(self):
                return "9.0"
        def solve(n):
            return Near(5.0)
        """,
        (WRONG,),
        CALLED,
        answers={3: 9.0},
        test="assert abs(solve(3) - 9.0) < 1e-6\n",
    ),
    Attack(
        "121 bytes of an integer that lie",
        """
        class Big(int):
            def to_bytes(self, *_, **__):
                return (9).to_bytes(8, "little")
            def bit_length(self):
                return 4
            def __format__(self, spec):
                return "9"
            __repr__ = __str__ = lambda self: "9"
        def solve(n):
            return Big(5)
        """,
        (WRONG,),
        CALLED,
    ),
]

SHAPES = [
    Attack(
        "122 an endless generator",
        "def solve(n):\n    while True:\n        yield n\n",
        (WRONG, TIMEOUT, MEMORY),
        CALLED,
    ),
    Attack(
        "123 a generator that leaves",
        "import os\ndef solve(n):\n    yield n * n\n    os._exit(0)\n",
        (WRONG, CRASHED),
        CALLED,
    ),
    *(
        Attack(
            f"124 a list {depth} deep",
            f"def solve(n):\n    deep = []\n    for _ in range({depth}):\n        deep = [deep]\n    return deep\n",
            (WRONG,),
            CALLED,
        )
        for depth in (60, 250, 990, 20_000)
    ),
    Attack(
        "125 a small value that is large when written out",
        """
        def solve(n):
            shared = [0]
            for _ in range(40):
                shared = [shared, shared]
            return shared
        """,
        (WRONG, TIMEOUT, MEMORY),
        CALLED,
    ),
    Attack("126 half of a pair of surrogates", "def solve(n):\n    return '\\ud800' * n\n", (WRONG,), ALL_MODES),
    Attack(
        "126 surrogates that are what is asked",
        "def solve(n):\n    return '\\ud800'\n",
        (RIGHT,),
        answers={3: "\ud800"},
    ),
    Attack(
        "127 sets and keys that cannot be sorted",
        """
        def solve(n):
            return {None: {1, "1", b"1", 1.5, (), frozenset({None}), True}, (1, "a"): {2}, 1.5: ..., b"": 2j, "": None}
        """,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "128 sets that are what is asked",
        "def solve(n):\n    return {frozenset({1, 'a', None}), (2, 'b'), 3.5, 'c'}\n",
        (RIGHT,),
        answers={3: {"c", 3.5, (2, "b"), frozenset({None, "a", 1})}},
    ),
    Attack("129 no number in a set", "def solve(n):\n    return {float('nan'), float('nan')}\n", (WRONG,), CALLED),
    Attack(
        "130 a function, a module, a type",
        "import sys\ndef solve(n):\n    return [solve, sys, int][n % 3]\n",
        (WRONG,),
        CALLED,
    ),
    Attack("131 100,000 small numbers", "def solve(n):\n    return [0] * 100_000\n", (WRONG,), CALLED, limits=ROOMY),
    Attack(
        "132 a tuple where a list is asked",
        "def solve(n):\n    return (n,)\n",
        (WRONG, RIGHT),
        answers={3: [3], 7: [7]},
    ),
    Attack("133 longer than asked", "def solve(n):\n    return [9, 9]\n", (WRONG,), answers={3: [9]}),
    Attack("133 shorter than asked", "def solve(n):\n    return []\n", (WRONG,), answers={3: [9], 7: [[]]}),
    Attack("133 another key more", "def solve(n):\n    return {'a': 1, 'b': 2}\n", (WRONG,), answers={3: {"a": 1}}),
]

RAISED = [
    Attack(
        "134 an exception with a text of 64 MB",
        "def solve(n):\n    raise ValueError('x' * (64 << 20))\n",
        (WRONG, MEMORY, CRASHED),
        ALL_MODES,
        limits=ROOMY,
    ),
    Attack(
        "135 an exception whose text never ends",
        """
        class Endless(Exception):
            def __str__(self):
                while True:
                    pass
            __repr__ = __str__
        def solve(n):
            raise Endless
        """,
        (WRONG, TIMEOUT),
        ALL_MODES,
    ),
    Attack(
        "136 a chain of 100,000 exceptions",
        """
        def solve(n):
            error = None
            for _ in range(100_000):
                last = ValueError("x")
                last.__cause__ = error
                error = last
            raise error
        """,
        (WRONG, CRASHED, TIMEOUT, MEMORY),
        ALL_MODES,
    ),
    Attack(
        "137 exceptions that hold themselves",
        "def solve(n):\n    error = ValueError()\n    error.__context__ = error\n    raise error\n",
        (WRONG,),
        ALL_MODES,
    ),
    Attack(
        "138 raises the class of everything", "def solve(n):\n    raise BaseException('PASS')\n", (WRONG,), ALL_MODES
    ),
    Attack("138 raises MemoryError", "def solve(n):\n    raise MemoryError\n", (WRONG, MEMORY), ALL_MODES),
    Attack("138 raises RecursionError", "def solve(n):\n    return solve(n)\n", (WRONG,), ALL_MODES),
    Attack("138 raises when imported", "raise TimeoutError('infrastructure_fault')\n", (WRONG,), ALL_MODES),
    Attack(
        "139 dies under a test that swallows exceptions",
        "import os\ndef solve(n):\n    os._exit(0)\n",
        (WRONG, CRASHED),
        ("check",),
        test="try:\n    solve(3)\nexcept Exception:\n    pass\n",
    ),
    Attack(
        "139 dies under a test that swallows everything",
        "import os\ndef solve(n):\n    os._exit(0)\n",
        (WRONG, CRASHED),
        ("check",),
        test="try:\n    solve(3)\nexcept:\n    pass\n",
    ),
    Attack(
        "139 leaves under a test that swallows everything",
        "import sys\ndef solve(n):\n    sys.exit(0)\n",
        (WRONG, RIGHT),  # an exception that was raised, like any other: the test chose to swallow it
        ("check",),
        test="try:\n    solve(3)\nexcept BaseException:\n    pass\n",
    ),
    Attack(
        "139 the exception that a test asks for",
        "def solve(n):\n    raise ValueError(n)\n",
        (RIGHT,),
        ("check",),
        test="try:\n    solve(3)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError\n",
    ),
    Attack(
        "139 another exception than a test asks for",
        "class ValueError(Exception):\n    pass\ndef solve(n):\n    raise KeyError('ValueError')\n",
        (WRONG,),
        ("check",),
        test="try:\n    solve(3)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError\n",
    ),
]

GROW = "def solve(n):\n    n.extend([0] * 100_000)\n    return 9\n"
ARGUMENTS = [
    Attack(
        "140 arguments that are changed",
        "def solve(n):\n    n.clear()\n    n.append(9)\n    return n[0]\n",
        (RIGHT,),
        ("check",),
        test="for start in ([3], [4]):\n    assert solve(list(start)) == 9\n    assert start != [9]\n",
    ),
    Attack(
        "140 arguments that are made large",
        GROW,
        (WRONG, RIGHT),
        ("check",),
        test="x = [3]\nassert solve(x) == 9\n",
        limits=ROOMY,
    ),
    Attack(
        "140 a second answer in the arguments",
        "kept = []\ndef solve(n):\n    kept.append(n)\n    n['expected'] = n['want'] = 0\n    return 0\n",
        (WRONG,),
        ("check",),
        test="given = {'want': 9}\nassert solve(given) == 9\n",
    ),
    Attack(
        "141 answers by the number of the call",
        "calls = []\ndef solve(n):\n    calls.append(n)\n    return [9, 49, 144][len(calls) % 3]\n",
        (WRONG,),
    ),
    Attack(
        "141 an attribute of the function", HONEST + "solve.__wrapped__ = solve.__code__ = None\n", (WRONG,), CALLED
    ),
    Attack(
        "141 a name that is looked up by tricks",
        """
        class Namespace(dict):
            def __missing__(self, key):
                return lambda *_: 9
            __getitem__ = get = __missing__
        import sys
        sys.modules["__main__"] = sys.modules["candidate"] = sys.modules[__name__] = Namespace()
        """,
        (WRONG,),
        CALLED,
    ),
]

ODD_VALUES = [*CLASSES, *SHAPES, *RAISED, *ARGUMENTS]
