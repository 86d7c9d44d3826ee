"""Gemma 3's chat format: what a conversation looks like in tokens.

A conversation is `<bos>` once, then for each turn `<start_of_turn>`, the role (`user` or `model`), a newline, the
trimmed content, `<end_of_turn>` and a newline. There is no system turn: system text, as it is, and a blank line stand
at the beginning of the first user turn. Control tokens that are spelt out in a message's text are read as control
tokens, in the original as here.
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
    """Tokens of a conversation up to where the model speaks: `<bos>` once, and `<start_of_turn>model\\n` last."""
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def continued_ids(
    tokenizer: PreTrainedTokenizerFast,
    prompt: Sequence[int],
    completion: Sequence[int],
    user: str,
    ends: Sequence[int] = (),
) -> list[int]:
    """Tokens of a conversation that goes on: its prompt and the very tokens that were said, and the user's next turn.

    What was said is not written out and read again, which could cut it into other tokens. It ends with `<end_of_turn>`,
    also where it ended with another of `ends` or was cut off.
    """
    said = completion[:-1] if completion and completion[-1] in ends else completion
    turn = f"{END_OF_TURN}\n<start_of_turn>user\n{user.strip()}{END_OF_TURN}\n<start_of_turn>model\n"
    return [*prompt, *said, *tokenizer(turn, add_special_tokens=False)["input_ids"]]


def completion_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Tokens of what the model says after `prompt_ids`: the text as it is, then `<end_of_turn>` and nothing more."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.convert_tokens_to_ids(END_OF_TURN)]


def completion_text(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Text of a completion, without control tokens."""
    return tokenizer.decode(list(ids), skip_special_tokens=True)
