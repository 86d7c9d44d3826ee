"""A reward model: Gemma 3's layers with a linear head on the last token's features; how it is made, kept and read."""

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, Gemma3TextForSequenceClassification, PreTrainedTokenizerFast

from contracts.errors import RunError, UserError
from policy.attention.attention import implementation
from policy.policy import Policy
from weights.checkpoint import whole_folder


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
        UserError: the folder holds something else.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: expected the folder of a reward model, as the stage `warm` writes."
        ) from error
    name = Gemma3TextForSequenceClassification.__name__
    if name not in (config.get("architectures") or []):
        raise UserError(
            f"{folder} holds {config.get('architectures')}, expected {name}: name the output of a `warm` stage."
        )
    model = Gemma3TextForSequenceClassification.from_pretrained(
        folder, attn_implementation=implementation(attention), attention_dropout=dropout
    )
    if model.config.num_labels != 1:
        raise UserError(f"{folder} gives {model.config.num_labels} numbers a text: a reward model gives one.")
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer kept beside a reward model."""
    return AutoTokenizer.from_pretrained(folder)


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
