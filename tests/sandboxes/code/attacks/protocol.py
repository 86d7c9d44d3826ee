"""Attacks of our own that speak the language of the channel between a program and the outside.

A frame is a length (four bytes, big endian), a kind (one byte) and a body; an answer's body is the number of the
question and the bytes of a value. The channel is descriptor 3.
"""

from tests.sandboxes.code.attacks.attack import (
    ATTEMPTS,
    CALLED,
    CRASHED,
    EMPTY,
    HONEST,
    MEMORY,
    RIGHT,
    TIMEOUT,
    WAITING,
    WRONG,
    Attack,
    limited,
)

DEAD = (WRONG, CRASHED)  # it leaves after what it wrote
SPEAK = """
import os, socket, struct, sys

def frame(kind, body=b""):
    return struct.pack(">I", len(body) + 1) + kind + body

def number(value):
    return struct.pack(">I", value)

def put(data):
    while data:
        data = data[os.write(3, data):]

NINE = b"i" + struct.pack(">I", 1) + bytes([9])
"""


def answering(body: str) -> str:
    """A program whose function writes these bytes in place of its first answer, and waits to be believed."""
    return SPEAK + f"calls = []\ndef solve(n):\n    put({body})\n    os._exit(0)\n"


LEFT = 'b"l" + number(0) + b"d" + number(0)'  # the arguments as they were left, which follow a value in check mode

FORGED = [
    Attack(
        "164 wrong answers before any question",
        SPEAK
        + """
for index in range(4):
    put(frame(b"V", number(index) + b"N"))
"""
        + EMPTY,
        (WRONG,),
        CALLED,
    ),
    Attack(
        "165 many answers to one question",
        SPEAK
        + """
def solve(n):
    for kind in (b"V", b"H", b"E", b"N", b"C", b"M", b"X", b"U", b"G", b"Q", b"!"):
        put(frame(kind, number(0) + NINE) + frame(kind))
    return None
""",
        DEAD,
        CALLED,
    ),
    *(
        Attack(f"166 an answer of kind {kind!r}", answering(f"frame({kind!r}, number(0) + NINE)"), DEAD, CALLED)
        for kind in (b"E", b"N", b"H", b"R", b"P", b"G", b"Q", b"\0")
    ),
    Attack(
        "167 an answer to a later question",
        answering('frame(b"V", number(1) + NINE) + frame(b"V", number(0) + NINE)'),
        DEAD,
        CALLED,
    ),
    *(
        Attack(
            f"168 a frame of length {length}",
            answering(f"struct.pack('>I', {length}) + bytes(100)"),
            DEAD,
            CALLED,
        )
        for length in (0, 1, 4, 0x7FFFFFFF, 0xFFFFFFFF)
    ),
    Attack(
        "169 half of a length, then silence",
        SPEAK + "import time\ndef solve(n):\n    put(bytes(2))\n    time.sleep(1000)\n",
        (TIMEOUT,),
        CALLED,
        limits=WAITING,
    ),
    Attack(
        "169 half of a frame, then the end",
        answering('frame(b"V", number(0) + NINE)[:-1]'),
        DEAD,
        CALLED,
    ),
]

MALFORMED = {
    "no value": "b''",
    "an unknown tag": "b'?'",
    "a length beyond the end": "b'l' + number(0xFFFFFFFF)",
    "an integer without bytes": "b'i' + number(0)",
    "an integer with leading zeros": "b'i' + number(60000) + bytes(59999) + bytes([9])",
    "text that is not UTF-8": "b's' + number(2) + b'\\xff\\xfe'",
    "a set of lists": "b'S' + number(1) + b'l' + number(0)",
    "a dictionary with a list for a key": "b'd' + number(1) + b'l' + number(0) + b'N'",
    "a list 10,000 deep": "(b'l' + number(1)) * 10000 + b'N'",
    "two values": "NINE + NINE",
    "the right value and more": "NINE + b'N' * 1000",
    "a NaN": "b'f' + b'\\x7f\\xf8' + bytes(6)",
}
VALUES = [
    Attack(
        f"170 {name}",
        answering(f'frame(b"V", number(0) + {body})'),
        DEAD,
        ("calls",),
    )
    for name, body in MALFORMED.items()
] + [
    Attack(
        f"171 {name}, for the judge",
        answering(f'frame(b"V", number(0) + b"l" + number(3) + {body} + {LEFT})'),
        DEAD,
        ("check",),
    )
    for name, body in MALFORMED.items()
]

CLOCKS = [
    Attack(
        "189 a name that says how long it took to load",
        """
        import ctypes, time
        libc = ctypes.CDLL(None)
        def solve(n):
            for spent in (1, 999, 999999, -999999):
                libc.prctl(15, b"loaded %d" % spent, 0, 0, 0)
            while True:
                libc.prctl(15, b"loaded 9999999", 0, 0, 0)
        """,
        (TIMEOUT,),
        CALLED,
        limits=limited(cpu=0.8, case_cpu=0.3),  # a program can move the second, never the first
        answers={3: 9},
        test="assert solve(3) == 9\n",
    ),
    Attack(
        "190 claims that it could not be loaded, or that memory ran out",
        SPEAK + "put(frame(b'O', b'infra_error') + frame(b'L', b'infra_error'))\n" + EMPTY,
        (*DEAD, MEMORY),
        CALLED,
    ),
]

FOR_THE_JUDGE = [
    Attack(
        "172 a dictionary of 200,000 colliding keys, for the judge",
        SPEAK
        + """
pairs = []
for index in range(200_000):
    body = (index * (2**61 - 1)).to_bytes(12, "big")
    pairs.append(b"i" + number(12) + body + b"N")
left = b"l" + number(0) + b"d" + number(0)
put(frame(b"V", number(0) + b"l" + number(3) + b"d" + number(len(pairs)) + b"".join(pairs) + left))
import time
time.sleep(1000)
""",
        (WRONG, TIMEOUT),
        ("check",),
        limits=limited(cpu=1.0, case_cpu=1.0, wall_factor=1.0, memory=256 << 20),
    ),
    *(
        Attack(
            f"173 an exception of class {name}, for the judge",
            answering(f'frame(b"X", number(0) + {name.encode()!r} + b": text")'),
            DEAD,
            ("check",),
        )
        for name in ("StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "UnicodeDecodeError")
    ),
    *(
        Attack(
            f"174 an exception by the name of {name!r}, for the judge",
            answering(f'frame(b"X", number(0) + {name!r})'),
            DEAD,
            ("check",),
        )
        for name in (
            b"",
            b": ",
            b"\xff\xfe",
            b"exit: 0",
            b"__import__: os",
            b"copyright",
            b"Exception: ",
            b"type: x",
        )
    ),
    Attack(
        "175 stops a loop in the test that hides exceptions of its own kind",
        "def solve(n):\n    raise StopIteration\n",
        (WRONG,),
        ("check",),
        test="for n in iter(lambda: solve(3), 9):\n    break\nassert solve(3) == 9\n",
    ),
]

SOCKETS = [
    Attack(
        "176 bytes out of band",
        SPEAK
        + """
import time
channel = socket.socket(fileno=os.dup(3))
def solve(n):
    for _ in range(20):
        try:
            channel.send(b"!", socket.MSG_OOB)
        except OSError as error:
            print("refused out of band", error.errno, flush=True)
    time.sleep(1000)
""",
        (WRONG, TIMEOUT, CRASHED),
        CALLED,
        limits=limited(wall_factor=3.0),
    ),
    *(
        Attack(
            f"177 shuts its channel, {how}",
            SPEAK + f"socket.socket(fileno=os.dup(3)).shutdown(socket.{how})\n" + HONEST,
            (WRONG, TIMEOUT, CRASHED, RIGHT),  # right, where it has read all questions and answers them
            CALLED,
            limits=WAITING,
        )
        for how in ("SHUT_RD", "SHUT_WR", "SHUT_RDWR")
    ),
    Attack(
        "178 hands descriptors to the host",
        SPEAK
        + """
import array
channel = socket.socket(fileno=os.dup(3))
def solve(n):
    given = array.array("i", [0, 1, 2]).tobytes()
    body = number(calls) + b"N"
    channel.sendmsg([frame(b"V", number(calls) + b"N")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
    os._exit(0)
calls = 0
""",
        DEAD,
        CALLED,
    ),
    Attack(
        "179 the process at the other end of the channel",
        ATTEMPTS
        + """
import ctypes, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
channel = socket.socket(fileno=os.dup(3))
try:
    pid, uid, gid = struct.unpack("=iII", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print("peer", pid, uid, gid, flush=True)
    if pid > 1:
        tried("its number", os.kill, pid, 0)
except OSError as error:
    print("refused peer", error.errno)
try:
    peer = channel.getsockopt(socket.SOL_SOCKET, 77)
    print("descriptor", peer, flush=True)
    tried("signal", signal.pidfd_send_signal, peer, 0)
    tried("wait", os.waitid, os.P_PIDFD, peer, os.WEXITED | os.WNOHANG)
    for name, number in (("getfd", 438), ("madvise", 440), ("setns", 308)):
        tried(name, lambda: 1 / (libc.syscall(number, peer, 0, 0, 0, 0) + 1))
except OSError as error:
    print("refused descriptor", error.errno)
""",
        (WRONG,),
        shows="peer",
    ),
    Attack(
        "180 signals by way of a descriptor",
        ATTEMPTS
        + """
import fcntl, struct
for descriptor in range(4):
    tried("owner", fcntl.fcntl, descriptor, fcntl.F_SETOWN, 1)
    tried("signal", fcntl.fcntl, descriptor, fcntl.F_SETSIG, 9)
    tried("owner by ioctl", fcntl.ioctl, descriptor, 0x8901, struct.pack("i", 1))
tried("lease", fcntl.fcntl, os.open(os.__file__, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
tried("notify", fcntl.fcntl, os.open("/tmp", os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE)
""",
        (WRONG,),
        shows="refused owner",
    ),
]

PROTOCOL = [*FORGED, *VALUES, *CLOCKS, *FOR_THE_JUDGE, *SOCKETS]
