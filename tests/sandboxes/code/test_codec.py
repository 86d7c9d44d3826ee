import itertools
import math
import random
import time

import pytest

from gemsmith.sandboxes.code.codec import DEEPEST, CodecError, decode, encode, matches

PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    255,
    -(2**4000),
    0.0,
    -0.0,
    1e300,
    float("inf"),
    1 + 2j,
    "",
    "é\ud800\0",
    b"\0\xff",
    bytearray(b"x"),
    [],
    (),
    [1, [2, (3,)]],
    {},
    {"b": 1, "a": [2], (1, 2): None},
    {1, 2, 3},
    frozenset({"x"}),
]


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def some_value(source: random.Random, depth: int = 0) -> object:
    kind = source.randrange(6 if depth > 3 else 9)
    leaves = [
        None,
        source.random() < 0.5,
        source.randrange(-(10**30), 10**30),
        source.gauss(0, 1e9),
        "ab" * kind,
        b"\0",
    ]
    if kind < 6:
        return leaves[kind]
    members = [some_value(source, depth + 1) for _ in range(source.randrange(5))]
    if kind == 6:
        return members
    if kind == 7:
        return tuple(members)
    return {number: member for number, member in enumerate(members)}


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_survives(value: object) -> None:
    again = decode(encode(value))
    assert again == value and type(again) is type(value)
    assert matches(value, encode(value, canonical=True))


def test_random_values_survive_and_match_themselves_only() -> None:
    source = random.Random(0)
    values = [some_value(source) for _ in range(300)]
    for value, other in itertools.pairwise(values):
        assert decode(encode(value)) == value
        assert matches(value, encode(value, canonical=True))
        assert matches(value, encode(other, canonical=True)) == (encode(value) == encode(other))


def test_cut_and_changed_bytes_are_refused_or_are_another_value() -> None:
    source = random.Random(1)
    value = [1, "two", {"three": 3.0}, (None, {4})]
    data = encode(value)
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:end])
    for _ in range(2000):
        changed = bytearray(data)
        changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
        try:
            decode(bytes(changed))
        except CodecError:
            continue
        matches(value, bytes(changed))


def test_types_must_match_but_for_whole_numbers() -> None:
    assert matches([1.0, 2], encode([1, 2.0]))
    assert matches(0, encode(-0.0))
    assert not matches(1, encode(True))
    assert not matches(True, encode(1))
    assert not matches([1], encode((1,)))
    assert not matches("a", encode(b"a"))
    assert not matches({1}, encode([1]))
    assert not matches(9, encode([9]))
    assert not matches([1, 2], encode([1]))
    assert not matches([1], encode([1, 2]))


def test_tolerance_is_for_numbers_where_it_is_asked_for() -> None:
    assert not matches(0.3, encode(0.1 + 0.2))
    assert matches({"x": [0.3]}, encode({"x": [0.1 + 0.2]}, canonical=True), 1e-9)
    assert not matches(1.0, encode(1.1), 1e-3)
    assert matches(1000.0, encode(1000.5), 1e-3)  # 0.5 <= 0.001 + 0.001 * 1000
    assert not matches(1.0, encode(math.nan), 1e9)
    assert not matches(1.0, encode(math.inf), 1e9)
    assert matches(math.nan, encode(math.nan))


def test_order_of_members_does_not_count_but_is_kept_for_arguments() -> None:
    assert matches({"a": 1, "b": 2}, encode({"b": 2, "a": 1}, canonical=True))
    assert list(decode(encode({"b": 2, "a": 1}))) == ["b", "a"]


def test_a_subclass_is_sent_as_what_it_holds() -> None:
    assert not matches(9, encode(Liar(3), canonical=True))
    assert matches(3, encode(Liar(3), canonical=True))


def test_what_is_not_plain_data_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)
    for value in (object(), knot, lambda: 0, (n for n in range(3))):
        with pytest.raises(CodecError):
            encode(value)
    assert decode(encode((n for n in range(3)), drain=True)) == [0, 1, 2]
    deep: list[object] = []
    for _ in range(DEEPEST + 1):
        deep = [deep]
    with pytest.raises(CodecError):
        encode(deep)
    with pytest.raises(CodecError):
        decode(b"l\0\0\0\1" * 100_000 + b"N")


def test_hostile_bytes_cost_little() -> None:
    collisions = {number * (2**61 - 1): 1 for number in range(300)}
    forged = encode(collisions, canonical=True) * 200
    begun = time.process_time()
    assert not matches({"a": 1}, forged)
    assert not matches([1] * 1000, b"l\xff\xff\xff\xff" + forged)
    assert time.process_time() - begun < 1  # decoding it as a dictionary would take minutes
