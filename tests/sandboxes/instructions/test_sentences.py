import pytest

from gemsmith.sandboxes.instructions.sentences import count_sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One.", 1),
        ("One. Two! Three? Four", 4),
        ("One\ntwo\n\nthree.", 1),
        ('"Stop!" he said. (It was late.) Then he left.', 4),
        ("**Bold.** Next.", 2),
        ("What?! No...", 2),
        ("One. --- \n*** Two.", 2),
        ("See example.com or v1.2.3 for 3.5 more.", 1),
        ("Mr. Smith met Dr. J. Brown vs. the U.S. team at 5 p.m. today.", 1),
        ("They live in the U.S. He left at 5 p.m. Then it rained, etc. and so on.", 3),
        ("So do I. You too.", 2),
        ("See No. 5 in vol. 2. I said no. He left.", 3),
        ("1. First point.\n2. Second point.\na. third point.", 3),
        ("It is in 1995. Then came more.", 2),
        ("42.", 1),
        ("猫がいる。犬もいる。", 2),
        ("यह एक है। यह दो है।", 2),
    ],
)
def test_sentences_are_counted(text: str, count: int):
    assert count_sentences(text) == count
