"""The state of completions during sampling: keys and values in buffers updated in place, and their masks.

All R rows share one time axis; the next token of every row goes to `column`. Prompts end at the same column, and the
columns before a row's `first` are empty. A global layer keeps all columns, a window layer a ring of as many as its
window (column c in slot c mod W): the order of keys does not matter to attention. The last rows overwrite rows that
end.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from gemsmith.policy.policy import Policy

GROWTH = 64  # columns that a global layer's buffer grows by at least; it grows by half
PADDING = 1.25  # tokens computed for each token of a prompt, at most, where prompts of several lengths are prefilled
GLOBAL, SLIDING = "full_attention", "sliding_attention"
FEW, MANY = 256, 8192  # tokens of a prefill: below, more prompts join whatever their length; above, none does


class Running:
    """Rows that are still running: `logits_RV` of their next tokens, and the cache that `advance` extends."""

    logits_RV: Tensor

    def __init__(self, policy: Policy, prompts: Sequence[list[int]], more: int) -> None:
        """Prefill each group of equal prompts once.

        Args:
            policy: the policy whose model computes.
            prompts: one per row, the shortest first.
            more: maximum number of tokens that any row may get.
        """
        self._model: Any = policy.model
        # Equal prompts are adjacent (n samples of one prompt): only the first of each run is computed, and its keys,
        # values and logits are copied to the others.
        first_of_run = [i for i, prompt in enumerate(prompts) if i == 0 or prompt != prompts[i - 1]]
        rows_U = [end - i for i, end in zip(first_of_run, [*first_of_run[1:], len(prompts)], strict=True)]
        distinct = [prompts[i] for i in first_of_run]
        width = len(prompts[-1])
        first_R = torch.tensor([width - len(prompt) for prompt in prompts], device=policy.device)
        self._cache = _Slots(policy.model.config, first_R, width, width + more, policy.model.dtype)
        logits, row = [], 0
        # Groups bound the padding: a short prompt is not padded to the longest one of the batch.
        for group in prefills([len(prompt) for prompt in distinct]):
            run_G = torch.tensor(rows_U[group], device=policy.device)
            logits_GV, filled = self._prefill(distinct[group], policy.device)
            logits.append(logits_GV.repeat_interleave(run_G, dim=0))
            self._cache.put(filled, run_G, row)
            row += sum(rows_U[group])
        self.logits_RV = logits[0] if len(logits) == 1 else torch.cat(logits)

    def _prefill(self, prompts: Sequence[list[int]], device: torch.device) -> tuple[Tensor, DynamicCache]:
        """Return the logits after each prompt, and a cache of all keys and values, with prompts padded on the left."""
        width = len(prompts[-1])
        # Left padding, so that all prompts end at the same column and the next token has one column for all rows.
        ids_GL = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        attended_GL = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        attended_GL = attended_GL.to(device)
        cache = DynamicCache()
        logits_G1V = self._model(
            input_ids=ids_GL,
            attention_mask=attended_GL,
            position_ids=(attended_GL.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits_G1V[:, -1], cache

    def drop(self, ended_R: Tensor) -> Tensor:
        """Continue without the rows that ended; return which of the R rows is in each place now."""
        running = len(ended_R) - int(ended_R.sum())
        # The first `running` places stay. N ended rows among them are overwritten by the N running rows behind them, so
        # that only N rows are copied.
        place_N = ended_R[:running].nonzero().squeeze(-1)
        source_N = (~ended_R[running:]).nonzero().squeeze(-1) + running
        order_R = torch.arange(running, device=ended_R.device)
        order_R[place_N] = source_N
        self._cache.move(source_N, place_N, running)
        return order_R

    def advance(self, token_R: Tensor) -> None:
        """Append a token to every row."""
        self.logits_RV = self._model(
            input_ids=token_R.unsqueeze(-1),
            attention_mask=self._cache.masks(),
            position_ids=self._cache.positions(),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._cache.column += 1


def prefills(lengths: Sequence[int]) -> list[slice]:
    """Return groups of prompts to prefill together, the shortest first, limited so that padding and size stay small.

    Args:
        lengths: lengths of the prompts, in tokens, ascending.
    """
    starts, tokens = [0], 0
    for i, length in enumerate(lengths):
        # Prompts ascend, so joining this one pads all earlier prompts of the group to its length.
        padded = length * (i - starts[-1] + 1)
        if tokens and ((padded > PADDING * (tokens + length) and tokens >= FEW) or padded > MANY):
            starts.append(i)
            tokens = 0
        tokens += length
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


class _Slots(Cache):
    """A cache that takes one new token per row, at `column`, and its attention masks."""

    def __init__(self, config: Any, first_R: Tensor, column: int, limit: int, dtype: torch.dtype) -> None:
        """Create the cache for rows whose prompts begin at `first_R` and end before `column`, with columns up to
        `limit`.
        """
        super().__init__(layers=[])
        self.column, self._first_R = column, first_R
        self._latest = int(first_R.max())
        self._window = min(config.sliding_window, limit)
        self._layers = [_LayerCache(limit, self._window if kind == SLIDING else None) for kind in config.layer_types]
        column_C = torch.arange(limit, device=first_R.device)
        # Columns before a row's prompt are masked with -inf. The window's ring starts with the last W columns of the
        # prompts; later columns clear their slot (see masks).
        self._empty_RC = _excluded(column_C < first_R.unsqueeze(-1), dtype)
        self._empty_RW = self._empty_RC[:, : self._window].clone()
        recent_W = column_C[max(0, column - self._window) : column]
        self._empty_RW[:, recent_W % self._window] = self._empty_RC[:, recent_W]

    def put(self, filled: DynamicCache, run_G: Tensor, row: int) -> None:
        """Copy the keys and values of G prefilled prompts, each for its number of rows, starting at `row`."""
        for layer, source in zip(self._layers, filled.layers, strict=True):
            layer.put(
                source.keys, source.values, run_G, slice(row, row + int(run_G.sum())), len(self._first_R), self.column
            )
            source.keys = source.values = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new column of a layer and return all that it attends to (transformers' interface)."""
        return self._layers[layer_idx].write(key_states, value_states, self.column)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens so far (transformers' interface)."""
        return self.column

    def masks(self) -> dict[str, Tensor | None]:
        """Return the additive mask of the new token, [R, 1, 1, slots], for each kind of layer."""
        # The slot of the new column may have held a padding column, which leaves the window now.
        slot, seen = self.column % self._window, self.column + 1
        self._empty_RW[:, slot] = 0
        # Without padding in sight no mask is needed at all, which lets attention use its fastest path.
        padded = self._latest > 0
        padded_window = self._latest > max(0, seen - self._window)
        return {
            GLOBAL: self._empty_RC[:, None, None, :seen] if padded else None,
            SLIDING: self._empty_RW[:, None, None, : min(seen, self._window)] if padded_window else None,
        }

    def positions(self) -> Tensor:
        """Return the positions of the new tokens, [R, 1]."""
        return (self.column - self._first_R).unsqueeze(-1)

    def move(self, source_N: Tensor, place_N: Tensor, rows: int) -> None:
        """Copy some rows to the places of others, and continue with the first `rows`."""
        for layer in self._layers:
            layer.key, layer.value = (
                _moved(layer.key, source_N, place_N, rows),
                _moved(layer.value, source_N, place_N, rows),
            )
        self._first_R = _moved(self._first_R, source_N, place_N, rows)
        self._empty_RC = _moved(self._empty_RC, source_N, place_N, rows)
        self._empty_RW = _moved(self._empty_RW, source_N, place_N, rows)


class _LayerCache:
    """Keys and values of one layer, [R, G, slots, D] each; all columns, or with a window a ring of the last ones."""

    key: Tensor
    value: Tensor

    def __init__(self, limit: int, window: int | None) -> None:
        self._limit, self._window = limit, window
        self._slots = 0

    def put(self, key: Tensor, value: Tensor, run_G: Tensor, rows: slice, all_rows: int, column: int) -> None:
        """Write keys and values of prompts that end before `column`; slots before a prompt are 0, because 0 times
        NaN is NaN.
        """
        if self._slots == 0:
            self._slots = self._window or min(column + GROWTH, self._limit)
            shape = (all_rows, key.shape[1], self._slots, key.shape[3])
            self.key, self.value = key.new_zeros(shape), value.new_zeros(shape)
        # A window layer keeps only the last W columns; each goes to its slot of the ring.
        width = min(key.shape[2], self._slots)
        slot_L = torch.arange(column - width, column, device=key.device) % self._slots
        self.key[rows, :, slot_L] = key[:, :, -width:].repeat_interleave(run_G, dim=0)
        self.value[rows, :, slot_L] = value[:, :, -width:].repeat_interleave(run_G, dim=0)

    def write(self, key: Tensor, value: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """Add a token to every row."""
        if column >= self._slots and self._window is None:
            # Growth by half amortises the copies; a ring never grows.
            more = min(max(GROWTH, self._slots // 2), self._limit - self._slots)
            self.key, self.value = (torch.nn.functional.pad(old, (0, 0, 0, more)) for old in (self.key, self.value))
            self._slots += more
        slot, seen = column % self._slots, min(column + 1, self._slots)
        self.key[:, :, slot] = key[:, :, 0]
        self.value[:, :, slot] = value[:, :, 0]
        return self.key[:, :, :seen], self.value[:, :, :seen]


def _moved(tensor: Tensor, source_N: Tensor, place_N: Tensor, rows: int) -> Tensor:
    tensor[place_N] = tensor[source_N]
    return tensor[:rows]


def _excluded(where: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill_(where, -torch.inf)
