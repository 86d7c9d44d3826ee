"""Reward models (Gemma 3's layers with a linear head on the last token's features): creation, saving and loading."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, Gemma3TextForSequenceClassification, PreTrainedTokenizerFast

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.reading import read_json
from gemsmith.policy.attention.attention import implementation
from gemsmith.policy.loading.load import END_IDS
from gemsmith.policy.loading.model_files import reading_model
from gemsmith.policy.policy import Policy
from gemsmith.weights.checkpoint import whole_folder

_COPY = "copy it again"
_EXPECTED = "expected the complete output folder of a `warm` stage; copy it again"


def from_policy(policy: Policy) -> Gemma3TextForSequenceClassification:
    """Build a reward model that shares the policy's layers, with a head of zeros, so that every reward is 0."""
    config = copy.deepcopy(policy.model.config)
    config.num_labels = 1
    config.pad_token_id = policy.tokenizer.pad_token_id
    with torch.device("meta"):  # the weights are replaced below, so none are allocated
        model = Gemma3TextForSequenceClassification(config)
    model.model = policy.model.model
    weight = policy.model.model.norm.weight
    model.score.weight = nn.Parameter(torch.zeros(1, config.hidden_size, dtype=weight.dtype, device=weight.device))
    return model


def load_reward_model(
    folder: Path, attention: str = "auto", dropout: float = 0.0
) -> Gemma3TextForSequenceClassification:
    """Load a reward model that `save_reward_model` or transformers wrote, in its stored dtype.

    Args:
        folder: transformers folder of a Gemma 3 sequence classifier with one label.
        attention: attention implementation, as in a recipe's `policy`.
        dropout: attention dropout while the model is in training mode.

    Raises:
        UserError: the folder is incomplete or does not contain a reward model.
    """
    _check_kind(folder)
    with reading_model(folder, "the complete output folder of a `warm` stage", _COPY):
        model, report = Gemma3TextForSequenceClassification.from_pretrained(
            folder,
            attn_implementation=implementation(attention),
            attention_dropout=dropout,
            ignore_mismatched_sizes=True,  # reported below, with the file's shape and the expected one
            output_loading_info=True,
        )
    if model.config.num_labels != 1:
        raise UserError(f"{folder}: found num_labels {model.config.num_labels}, expected 1 for a reward model.")
    if missing := sorted(report["missing_keys"]):  # transformers would initialise them randomly
        raise UserError(f"{folder} lacks {len(missing)} of the reward model's tensors ({missing[0]}): {_EXPECTED}.")
    if wrong := sorted(report["mismatched_keys"]):
        name, found, wanted = wrong[0]
        raise UserError(
            f"tensor {name} of {folder} has shape {list(found)}, but its config.json needs {list(wanted)}: {_EXPECTED}."
        )
    return model


def _check_kind(folder: Path) -> None:
    path = folder / "config.json"
    remedy = "name the folder of a reward model, such as the output of a `warm` stage"
    architectures = read_json(path, "the config.json of a reward model", remedy).get("architectures")
    name = Gemma3TextForSequenceClassification.__name__
    if not isinstance(architectures, list) or name not in architectures:
        raise UserError(f"{folder} contains {architectures}, expected {name}: name the output of a `warm` stage.")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer from a reward model's folder.

    Raises:
        UserError: the folder has no tokenizer, or not that of Gemma 3.
    """
    with reading_model(folder, "the tokenizer of a reward model", _COPY):
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in END_IDS}
    if found != END_IDS or tokenizer.chat_template is None:  # without files, transformers builds an empty one
        raise UserError(f"The tokenizer in {folder} is not that of a Gemma 3 reward model: {_EXPECTED}.")
    return tokenizer


def save_reward_model(
    model: Gemma3TextForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    """Write the model, without dropout, and its tokenizer to `folder` atomically: completely or not at all.

    Raises:
        RunError: writing failed (disk full, read-only).
    """
    model.config.attention_dropout = 0.0
    try:
        with whole_folder(folder) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
    except (OSError, SafetensorError) as error:
        raise RunError(f"The reward model could not be written to {folder}: {error}.") from error
