"""Odd programs, odd streams and odd tests; the honest ones among them must be right."""

from tests.sandboxes.code.attacks.attack import (
    ALL_MODES,
    CALLED,
    CRASHED,
    HONEST,
    RIGHT,
    TIMEOUT,
    UNPARSABLE,
    WRONG,
    Attack,
)

SOURCES = [
    Attack("107 NUL in the program", HONEST + "x = 1\0\n", (UNPARSABLE,), ALL_MODES),
    Attack("108 half of a pair of surrogates", HONEST + "x = '\ud800'\n", (UNPARSABLE,), ALL_MODES),
    Attack(
        "109 UTF-7 in a comment",
        "# -*- coding: utf-7 -*-\n# +AAo-import os+AAo-os._exit(0)\ndef solve(n):\n    return None\n",
        (WRONG, UNPARSABLE),
        ALL_MODES,
    ),
    Attack("109 another unknown coding", "# coding: no-such-thing\n" + HONEST, (RIGHT, UNPARSABLE), ALL_MODES),
    Attack("110 BOM, CRLF and tabs", "\ufeffdef solve(n):\r\n\treturn n * n\r\n", (RIGHT,), ALL_MODES),
    Attack("a program that does not parse", "def solve(n) return n * n\n", (UNPARSABLE,), ALL_MODES),
    Attack("nothing at all", "", (WRONG, UNPARSABLE), CALLED),
    Attack("another name", "def solution(n):\n    return n * n\n", (WRONG,), CALLED),
    Attack("a number for a function", "solve = 9\n", (WRONG,), CALLED),
    Attack("invalid escapes and other warnings", HONEST + "x = '\\d' is '\\d'\n", (RIGHT,), ALL_MODES),
]

STREAMS = [
    Attack("111 honest", HONEST, (RIGHT,), ALL_MODES),
    Attack(
        "112 honest and noisy", "import sys\nprint('noise ' * 1000, file=sys.stderr)\n" + HONEST, (RIGHT,), ALL_MODES
    ),
    Attack(
        "112 honest and noisy on standard output",
        "def solve(n):\n    print('noise ' * 1000)\n    return n * n\n",
        (RIGHT,),
        CALLED,
    ),
    Attack("113 honest with closed standard input", "import sys, os\nsys.stdin.close()\n" + HONEST, (RIGHT,), CALLED),
    Attack(
        "113 honest with no standard streams",
        "import sys, os\nsys.stdin = sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None\n" + HONEST,
        (RIGHT,),
        CALLED,
    ),
    Attack(
        "114 right output, exit code 1",
        "print(int(input()) ** 2)\nraise SystemExit(1)\n",
        (WRONG,),
        ("stdio",),
        bare=True,
    ),
    Attack(
        "115 right output, then a loop",
        "print(int(input()) ** 2, flush=True)\nwhile True:\n    pass\n",
        (TIMEOUT,),
        ("stdio",),
        bare=True,
    ),
    Attack(
        "116 the beginning of the output",
        "import sys\nsys.stdout.write(str(int(input()) ** 2)[:-1])\n",
        (WRONG,),
        ("stdio",),
        bare=True,
    ),
    Attack("116 no output", "input()\n", (WRONG,), ("stdio",), bare=True),
    Attack("116 more lines", "n = int(input())\nprint(n * n)\nprint(n * n)\n", (WRONG,), ("stdio",), bare=True),
    Attack(
        "116 every number there is",
        "print(*range(200), sep='\\n')\n",
        (WRONG,),
        ("stdio",),
        bare=True,
    ),
    Attack(
        "115 right output, then death",
        "import os\nprint(int(input()) ** 2, flush=True)\nos.abort()\n",
        (CRASHED,),
        ("stdio",),
        bare=True,
    ),
    Attack(
        "a test that never calls the candidate",
        HONEST,
        (WRONG,),
        ("check",),
        test="assert True\n",
    ),
    Attack("a test with an error", HONEST, (WRONG,), ("check",), test="assert solve(3) == 9\nraise KeyError('test')\n"),
    Attack("a test that does not parse", HONEST, (WRONG, UNPARSABLE), ("check",), test="assert solve(3) ==\n"),
    Attack("a test that leaves", HONEST, (WRONG,), ("check",), test="solve(3)\nimport sys\nsys.exit(0)\n"),
]
