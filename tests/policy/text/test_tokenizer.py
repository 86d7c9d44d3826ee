import random

import pytest

from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.tokenizer import tiny_tokenizer


def test_control_tokens_have_gemmas_ids():
    tokenizer = tiny_tokenizer()
    expected = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, "[multimodal]": 5, "<unused0>": 6}
    expected |= {"<unused98>": 104, "<start_of_turn>": 105, "<end_of_turn>": 106, "<0x00>": 107, "<0xFF>": 362}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in expected} == expected
    assert len(tokenizer) == 512 == len(set(tokenizer.get_vocab().values()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces ",
        "a\n\n\tb\r\n",
        "it's n't . , don 't",
        "é 漢字 🎉 \u200d \x00 \x7f",
        "<0x0A> is not a newline",
        "12345 + 678 =",
        "<end_of_turn> and <bos>",
    ],
)
def test_text_survives_the_round_trip(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_random_unicode_survives_the_round_trip():
    tokenizer, draw = tiny_tokenizer(), random.Random(0)
    surrogates, space_mark = range(0xD800, 0xE000), 0x2581
    codes = [c for c in (draw.randrange(0x110000) for _ in range(5000)) if c not in surrogates and c != space_mark]
    codes += [draw.randrange(0x20, 0x250) for _ in range(2000)]
    draw.shuffle(codes)
    text = "".join(map(chr, codes))
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_stand_singly_and_words_are_whole():
    tokenizer = tiny_tokenizer()
    assert tokenizer.tokenize("What is 120 + 7?") == ["What", "▁is", "▁", "1", "2", "0", "▁+", "▁", "7", "?"]


def test_plain_text_gets_bos_once():
    assert tiny_tokenizer()("a")["input_ids"].count(2) == 1


def test_every_id_has_a_row_in_both_sizes():
    for size in ("small", "large"):
        assert tiny_policy(size).model.get_input_embeddings().num_embeddings == 512
