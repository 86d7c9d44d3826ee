"""Each of the 25 instructions on texts that follow it and on texts that do not."""

from typing import Any

import pytest

from gemsmith.sandboxes.instructions.registry import KINDS, instruction

AT_LEAST, LESS = "at least", "less than"
TWO, THREE = {"num_paragraphs": 2}, {"num_paragraphs": 3}
SECOND = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "It"}
PROMPT = "Write a poem. Make it short."

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["cat", "a.c"]},
        ["Concatenate A.C", "a.c CAT"],
        ["cat", "cat abc"],
    ),
    (
        "keywords:frequency",
        {"keyword": "ab", "frequency": 2, "relation": AT_LEAST},
        ["ab AB", "cabab"],
        ["ab", "a b"],
    ),
    ("keywords:frequency", {"keyword": "(", "frequency": 1, "relation": LESS}, ["none"], ["one ("]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["cat", "c++", "hot dog", "a.c", "(x"]},
        ["concatenate", "cats", "hot dogs", "c", "abc a.cd", "(xy)"],
        ["A Cat.", "in C++!", "one hot dog"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 2, "let_relation": AT_LEAST},
        ["Ee", "eee"],
        ["e", "x"],
    ),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": LESS}, ["#a"], ["##"]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": AT_LEAST},
        ["one two three", "don't stop"],
        ["one two", "one - two"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["one two"], ["one two three"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": AT_LEAST},
        ["One. Two.", "One! Two"],
        ["One.", "Mr. One"],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["One"], ["One? Two."]),
    (
        "length_constraints:number_paragraphs",
        TWO,
        ["a\n***\nb", "***a *** b***", "a\n\nc *** b"],
        ["a", "a\n\nb", "a *** *** b", "a *** b *** c"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        SECOND,
        ["One\n\nit is", 'One\n\n"It, too', "One\n\n\n\nIt's"],
        ["One\n\nIs it", "It", "it\n\nno", "One\n\nit\n\nthree"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {**THREE, "nth_paragraph": 4, "first_word": "a"},
        [],
        ["a\n\na\n\na", "a\n\na\n\na\n\na"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "text\n - a\n* b", "- a\n- b\n**c**"],
        ["* a", "* a\n* b\n* c", "a * b * c", "*\n*"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*", "**a** **b** **c**"],
        ["*a*", "**a**", "*a\nb* *", "** ** * *", "****"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        ["Day 1 a Day 2 b", "Day1\nDay2", "Day 1\nDay 2\nDay 3"],
        ["Day 1", "day 1 day 2", "Day one Day two"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part (a.", "num_sections": 1},
        ["Part (a. 1", "Part (a.2"],
        ["Part (ab 1", "Part a. 1"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```", " [1e5, -0.5] ", "9" * 5000],
        ['{"a": 1', '{"a": NaN}', 'Here: {"a": 1}', '{"a": 1} {"b": 2}', "{'a': 1}", "```json\n```"],
    ),
    ("detectable_format:title", {}, ["<<Song>>\nla", "a << b >> c"], ["<Song>", "<<>>", "<< >>", "<<a\nb>>", ">>a<<"]),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. So"],
        ["yes", "my answer is yes.", "My answer is perhaps."],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] [b]", "[a]\n[b]", "[a][b][c]"],
        ["[a]", "[a\n] [b]", "]a[ [b]", "[a [b]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye\nP.S. Hi", "bye p. s. hi"],
        ["PS Hi", "P.P.S Hi"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. Hi", "p. p. s"], ["P.S. Hi"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. hi"], ["nxbx hi"]),
    ("punctuation:no_comma", {}, ["none", "読点、です"], ["a, b"]),
    (
        "change_case:english_capital",
        {},
        ["THE CAT SAT ON THE MAT, TWICE."],
        ["The CAT", "DIE KATZE SITZT AUF DER MATTE UND SCHLÄFT", "123"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the cat sat on the mat, twice."],
        ["The cat", "die katze sitzt auf der matte und schläft", "123"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["NASA, USA", "AND/OR or WELL-BEING", "**BOLD** A"],
        ["NASA Usa", "WELL-BEING", "N1 iOS"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": LESS}, ["none"], ["ONE"]),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ["Hi. any questions? ", '"Any Questions?"'],
        ["Any questions? Yes", "Any questions"],
    ),
    ("startend:quotation", {}, ['"a"', ' "a" b "c" ', '""'], ['"', '"a', "'a'", "“a”"]),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": PROMPT},
        [f"{PROMPT}\n\nRoses", f"\n {PROMPT.upper()} x", PROMPT],
        ["Roses", f"Sure! {PROMPT}", PROMPT[:-1]],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a", "a ****** a", "a ****** b ****** c", "a ****** ****** b", "a ***** b"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Die Katze sitzt auf der Matte und schläft."],
        ["The cat sits on the mat and sleeps.", "Le chat dort sur le tapis."],
    ),
    ("language:response_language", {"language": "zh-cn"}, ["猫坐在垫子上睡觉。"], ["The cat sits on the mat."]),
    (
        "language:response_language",
        {"language": "eu"},
        ["Katua alfonbraren gainean lo dago."],
        ["The cat sleeps here."],
    ),
]


@pytest.mark.parametrize(("id", "fields", "follow", "do_not"), CASES)
def test_a_text_follows_an_instruction_or_does_not(
    id: str, fields: dict[str, Any], follow: list[str], do_not: list[str]
):
    one = instruction(id, fields)
    assert [text for text in follow if not one.followed(text)] == []
    assert [text for text in do_not if one.followed(text)] == []


def test_every_kind_has_a_case():
    assert {case[0] for case in CASES} == set(KINDS)


@pytest.mark.parametrize("id", ["punctuation:no_comma"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("text", ["", " \n\t "])
def test_a_blank_text_follows_nothing(id: str, strict: bool, text: str):
    assert not instruction(id).followed(text, strict)
