from typing import Any

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.sandboxes.instructions.registry import instruction, instructions


@pytest.mark.parametrize(
    ("id", "fields", "message"),
    [
        ("keywords:existance", {}, r"no instruction 'keywords:existance', did you mean .keywords:existence.\?"),
        ("nothing", {}, r"no instruction 'nothing'\."),
        (7, {}, "no instruction 7"),
        (["a"], {}, r"no instruction \['a'\]"),
        ("keywords:existence", {}, "keywords:existence needs the field 'keywords': a list of 1 to 50 words"),
        (
            "keywords:existence",
            {"keyword": ["a"]},
            r"no field 'keyword', did you mean .keywords.\?; its fields",
        ),
        ("keywords:existence", {"keywords": "dog"}, "keywords:existence: found 'keywords' = 'dog', expected a list of"),
        ("keywords:existence", {"keywords": []}, r"'keywords' = \[\]"),
        ("keywords:existence", {"keywords": ["a", 3]}, r"'keywords' = \['a', 3\]"),
        ("keywords:existence", {"keywords": ["a"] * 51}, "expected a list of 1 to 50 words"),
        ("keywords:existence", {"keywords": ["a" * 201]}, "none blank or longer than 200 characters"),
        ("keywords:existence", ["dog"], r"found the fields \['dog'\], expected a mapping or null"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "'at least' or 'less than'"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "'num_words' = True"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "whole number of at least 0"),
        ("length_constraints:number_words", {"num_words": 2.5, "relation": "at least"}, "'num_words' = 2.5"),
        ("length_constraints:number_words", {"num_words": float("nan"), "relation": "at least"}, "'num_words' = nan"),
        ("length_constraints:number_words", {"num_words": float("inf"), "relation": "at least"}, "'num_words' = inf"),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}, "'num_words' = '3'"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 0}, "whole number of at least 1"),
        ("language:response_language", {"language": "klingon"}, "'language' = 'klingon', expected a language code"),
        ("startend:end_checker", {"end_phrase": " "}, "a text that is not blank"),
        ("startend:quotation", {"x": 1}, "no field 'x'; its fields are none"),
    ],
)
def test_a_fault_names_the_instruction_and_the_field(id: Any, fields: Any, message: str):
    with pytest.raises(UserError, match=message):
        instruction(id, fields)


def test_the_long_value_of_a_field_is_cut_in_the_message():
    with pytest.raises(UserError) as caught:
        instruction("keywords:existence" + "x" * 10**6, {})
    assert len(str(caught.value)) < 200
    with pytest.raises(UserError) as caught:
        instruction("keywords:existence", {"keywords": "x" * 10**6})
    assert len(str(caught.value)) < 300


def test_fields_that_a_table_left_empty_or_turned_into_floats_are_understood():
    fields = {"num_words": 2.0, "relation": "at least", "keywords": None, "language": None}
    assert instruction("length_constraints:number_words", fields).followed("one two")


@pytest.mark.parametrize(
    ("ids", "fields", "message"),
    [
        (["startend:quotation"], [], "1 instruction ids but 0 sets of fields"),
        ("startend:quotation", [{}], "found 'startend:quotation', expected a list of instruction ids"),
        (["startend:quotation"], {}, "expected a list with the fields"),
        (["startend:quotation"], None, "found None, expected a list with the fields"),
    ],
)
def test_lists_that_do_not_match_are_an_error(ids: Any, fields: Any, message: str):
    with pytest.raises(UserError, match=message):
        instructions(ids, fields)
