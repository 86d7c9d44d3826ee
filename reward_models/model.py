"""A reward model: Gemma 3's layers with a linear head on the last token's features; how it is made, kept and read."""

import copy
import json
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, Gemma3TextForSequenceClassification, PreTrainedTokenizerFast

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.policy.attention.attention import implementation
from gemsmith.policy.loading.load import END_IDS
from gemsmith.policy.policy import Policy
from gemsmith.weights.checkpoint import whole_folder

_EXPECTED = "expected a folder as the stage `warm` wrote it, whole; copy it again"


def from_policy(policy: Policy) -> Gemma3TextForSequenceClassification:
    """A reward model on the policy's layers (shared with it, not copied), with a head of zeros: every reward is 0."""
    config = copy.deepcopy(policy.model.config)
    config.num_labels = 1
    config.pad_token_id = policy.tokenizer.pad_token_id
    with torch.device("meta"):  # no time and memory for weights that are replaced
        model = Gemma3TextForSequenceClassification(config)
    model.model = policy.model.model
    weight = policy.model.model.norm.weight
    model.score.weight = nn.Parameter(torch.zeros(1, config.hidden_size, dtype=weight.dtype, device=weight.device))
    return model


def load_reward_model(
    folder: Path, attention: str = "auto", dropout: float = 0.0
) -> Gemma3TextForSequenceClassification:
    """Read a reward model that `save_reward_model` or transformers wrote, in the dtype it was stored in.

    Args:
        folder: transformers folder of a Gemma 3 sequence classifier with one label.
        attention: attention implementation, as in a recipe's `policy`.
        dropout: attention dropout while the model is in training mode.

    Raises:
        UserError: the folder holds something else, or not all of it.
    """
    _check_kind(folder)
    try:
        model, report = Gemma3TextForSequenceClassification.from_pretrained(
            folder,
            attn_implementation=implementation(attention),
            attention_dropout=dropout,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()).rstrip(".:")
        raise UserError(f"The reward model in {folder} cannot be read ({reason}): {_EXPECTED}.") from error
    if model.config.num_labels != 1:
        raise UserError(f"{folder} gives {model.config.num_labels} numbers a text: a reward model gives one.")
    if missing := sorted(report["missing_keys"]):  # else transformers draws them at random
        raise UserError(f"{folder} lacks {len(missing)} of the reward model's tensors ({missing[0]}): {_EXPECTED}.")
    if wrong := sorted(report["mismatched_keys"]):
        name, found, wanted = wrong[0]
        raise UserError(
            f"tensor {name} of {folder} is {list(found)}, and its config.json wants {list(wanted)}: {_EXPECTED}."
        )
    return model


def _check_kind(folder: Path) -> None:
    path = folder / "config.json"
    try:
        architectures = json.loads(path.read_text()).get("architectures")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read: expected the folder of a reward model, as the stage `warm` writes."
        ) from error
    name = Gemma3TextForSequenceClassification.__name__
    if name not in (architectures or []):
        raise UserError(f"{folder} holds {architectures}, expected {name}: name the output of a `warm` stage.")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer kept beside a reward model.

    Raises:
        UserError: there is none, or it is not Gemma 3's.
    """
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".:")
        raise UserError(f"{folder} has no tokenizer that can be read ({reason}): {_EXPECTED}.") from error
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in END_IDS}
    if found != END_IDS or tokenizer.chat_template is None:  # without files, transformers makes an empty one up
        raise UserError(f"The tokenizer of {folder} is not the one of a Gemma 3 reward model: {_EXPECTED}.")
    return tokenizer


def save_reward_model(
    model: Gemma3TextForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    """Write the model, without dropout, and its tokenizer to a folder that appears whole or not at all.

    Args:
        model: what to write.
        tokenizer: kept beside it.
        folder: where.

    Raises:
        RunError: the disk refused (full, read-only).
    """
    model.config.attention_dropout = 0.0
    try:
        with whole_folder(folder) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the reward model could not be written to {folder}: {error}.") from error
