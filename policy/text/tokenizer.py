"""The tokenizer of `tiny`: 512 entries, with Gemma's control tokens at Gemma's ids, built offline.

Ids 0 to 106 are Gemma's own. Then come the 256 bytes, which spell any text, the printable ASCII characters, and whole
words of arithmetic prompts. As in Gemma, a space is written "▁" (a "▁" in a text therefore becomes a space: the only
character that does not survive), digits are single tokens, and unknown characters fall back to bytes.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from gemsmith.policy.text.chat import CHAT_TEMPLATE

VOCABULARY_SIZE = 512

_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(99))]
_CONTROL += ["<start_of_turn>", "<end_of_turn>"]
_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_CHARACTERS = ["▁", "\n", *(chr(code) for code in range(0x21, 0x7F))]
# fmt: off
_WORDS = [
    "user", "model", "State", "Calculate", "Compute", "Solve", "Find", "Give", "What", "Answer", "The", "So", "It",
    "\\boxed{"
]
_WORDS_AFTER_A_SPACE = [
    "the", "final", "answer", "to", "following", "arithmetic", "problem", "result", "is", "of", "a", "and", "for",
    "as", "your", "only", "number", "value", "what", "we", "get", "sum", "difference", "product", "equals", "plus",
    "minus", "times", "this", "add", "from", "+", "-", "*", "/", "=", "so", "by", "correct"
]
# fmt: on

# Scores steer the segmentation: a byte or a control token is never cheaper than its spelling in characters.
_SCORE, _LAST_RESORT = -1.0, -1000.0


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of `tiny`. It is always the same, uses the fewest pieces, and restores any text exactly."""
    pieces = [(piece, _LAST_RESORT) for piece in (*_CONTROL, *_BYTES)]
    pieces += [(piece, _SCORE) for piece in (*_CHARACTERS, *_WORDS, *(f"▁{word}" for word in _WORDS_AFTER_A_SPACE))]
    if len({piece for piece, _ in pieces}) != VOCABULARY_SIZE:
        raise AssertionError(f"the tiny vocabulary has {len(pieces)} entries, not {VOCABULARY_SIZE} distinct ones")
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_CONTROL.index("<unk>"), byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", _CONTROL.index("<bos>"))]
    )
    unused = [token for token in _CONTROL if token not in _SPECIAL]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in unused])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
