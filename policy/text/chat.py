"""Gemma 3's chat format: conversations as tokens.

A conversation is `<bos>` once, then for each turn `<start_of_turn>`, the role (`user` or `model`), a newline, the
trimmed content, `<end_of_turn>` and a newline. There is no system turn: system text, unchanged, and a blank line are
prepended to the first user turn. Control tokens spelt out in a message's text are parsed as control tokens, as in the
original.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

END_OF_TURN = "<end_of_turn>"

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set lead = namespace(text='') -%}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
    {%- set system = messages[0].content -%}
    {%- set lead.text = (system if system is string else system[0].text) + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn.role == 'user') == (loop.index0 % 2 == 1) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
    {%- endif -%}
    {%- set said = namespace(text='') -%}
    {%- if turn.content is string -%}
        {%- set said.text = turn.content | trim -%}
    {%- elif turn.content is iterable -%}
        {%- for part in turn.content -%}
            {%- if part.type == 'image' -%}
                {%- set said.text = said.text + '<start_of_image>' -%}
            {%- elif part.type == 'text' -%}
                {%- set said.text = said.text + (part.text | trim) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- raise_exception('Invalid content type') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\\n' -}}
    {{- lead.text if loop.first else '' -}}
    {%- if turn.role == 'assistant' -%}
        {%- generation -%}{{- said.text + '<end_of_turn>' -}}{%- endgeneration -%}
        {{- '\\n' -}}
    {%- else -%}
        {{- said.text + '<end_of_turn>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the tokens of a conversation up to the model's turn: `<bos>` once, and `<start_of_turn>model\n` at the
    end.
    """
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def continued_ids(
    tokenizer: PreTrainedTokenizerFast,
    prompt: Sequence[int],
    completion: Sequence[int],
    user: str,
    ends: Sequence[int] = (),
) -> list[int]:
    """Return the tokens of a continued conversation: its prompt, the exact tokens of the completion, and the next user
    turn.

    The completion is not decoded and tokenised again, which could give other tokens. It ends with `<end_of_turn>`, even
    if it ended with another token of `ends` or was cut off.
    """
    said = completion[:-1] if completion and completion[-1] in ends else completion
    turn = f"{END_OF_TURN}\n<start_of_turn>user\n{user.strip()}{END_OF_TURN}\n<start_of_turn>model\n"
    return [*prompt, *said, *tokenizer(turn, add_special_tokens=False)["input_ids"]]


def completion_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the tokens of a completion after `prompt_ids`: the text unchanged, then `<end_of_turn>`."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.convert_tokens_to_ids(END_OF_TURN)]


def completion_text(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Text of a completion, without control tokens."""
    return tokenizer.decode(list(ids), skip_special_tokens=True)
