import pytest
from jinja2.exceptions import TemplateError

from gemsmith.policy.text.chat import completion_ids, completion_text, continued_ids, prompt_ids
from gemsmith.policy.text.tokenizer import tiny_tokenizer

SYSTEM, USER = {"role": "system", "content": "Be brief. "}, {"role": "user", "content": "  1 + 1?\n"}
ANSWER, AGAIN = {"role": "assistant", "content": " 2 "}, {"role": "user", "content": "Sure?"}


def shown(messages, **options):
    return tiny_tokenizer().apply_chat_template(messages, tokenize=False, **options)


def test_a_conversation_looks_like_gemmas():
    assert shown([SYSTEM, USER, ANSWER, AGAIN], add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nBe brief. \n\n1 + 1?<end_of_turn>\n"
        "<start_of_turn>model\n2<end_of_turn>\n"
        "<start_of_turn>user\nSure?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_content_in_parts_reads_as_text():
    parts = {"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "S"}]}
    assert shown([system, parts]) == "<bos><start_of_turn>user\nS\n\nab<end_of_turn>\n"


@pytest.mark.parametrize("messages", [[ANSWER], [USER, USER], [USER, ANSWER, ANSWER], [SYSTEM, ANSWER]])
def test_roles_that_do_not_alternate_are_refused(messages):
    with pytest.raises(TemplateError, match="must alternate"):
        shown(messages)


def test_prompt_has_one_bos_and_ends_where_the_model_speaks():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(prompt_ids(tokenizer, [USER]))
    assert tokens[:4] == ["<bos>", "<start_of_turn>", "user", "\n"]
    assert tokens[-5:] == ["<end_of_turn>", "\n", "<start_of_turn>", "model", "\n"]
    assert tokens.count("<bos>") == 1


def test_prompt_and_completion_are_what_the_template_makes_of_the_conversation():
    tokenizer = tiny_tokenizer()
    whole = tokenizer.apply_chat_template([USER, {"role": "assistant", "content": "It is 2."}], return_dict=False)
    assert prompt_ids(tokenizer, [USER]) + completion_ids(tokenizer, "It is 2.") + [
        tokenizer.convert_tokens_to_ids("\n")
    ] == list(whole)


def test_completion_ends_with_end_of_turn_and_reads_back_without_it():
    tokenizer = tiny_tokenizer()
    ids = completion_ids(tokenizer, "so 2")
    assert ids[-1] == 106 and ids.count(106) == 1 and 2 not in ids
    assert completion_text(tokenizer, ids) == "so 2"
    assert completion_text(tokenizer, [*ids[:-1], 1, 0, 0]) == "so 2"


def test_the_assistant_mask_covers_what_the_model_says_and_its_end():
    tokenizer = tiny_tokenizer()
    made = tokenizer.apply_chat_template([USER, ANSWER], return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(made["input_ids"], made["assistant_masks"], strict=True) if m]
    assert tokenizer.convert_ids_to_tokens(marked) == ["2", "<end_of_turn>"]


def test_a_conversation_goes_on_with_the_very_tokens_that_were_said():
    tokenizer = tiny_tokenizer()
    prompt, said = prompt_ids(tokenizer, [USER]), completion_ids(tokenizer, "2")
    end, eos = said[-1], tokenizer.convert_tokens_to_ids("<eos>")
    whole = prompt_ids(tokenizer, [USER, ANSWER, AGAIN])
    assert continued_ids(tokenizer, prompt, said, " Sure?\n", (eos, end)) == whole
    assert continued_ids(tokenizer, prompt, [*said[:-1], eos], "Sure?", (eos, end)) == whole  # as after <end_of_turn>
    assert continued_ids(tokenizer, prompt, said[:-1], "Sure?", (eos, end)) == whole  # as if it had ended
    apart = [token for letter in "12" for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    assert continued_ids(tokenizer, prompt, apart, "Sure?", (eos, end))[len(prompt) :][: len(apart)] == apart
