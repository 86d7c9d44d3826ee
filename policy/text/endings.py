"""Detection of a policy that cannot learn by adapters to end its turns."""

import re
from collections.abc import Sequence

import torch

from gemsmith.policy.head.logprobs import completion_hidden
from gemsmith.policy.head.tiled_matmul import chunk_logits
from gemsmith.policy.policy import Policy, evaluating
from gemsmith.policy.text.chat import END_OF_TURN

ASKED = 4  # demonstrations, the shortest ones
NEAR = 0.8  # mean cosine to unused tokens; in a pretrained Gemma <end_of_turn> has 0.91
LIKELIER = 0.01  # share of the unused tokens


def untaught_end(policy: Policy, demonstrations: Sequence[tuple[list[int], list[int]]]) -> str | None:
    """Return a warning if adapters are trained on a policy that has not learnt the end of a turn; None if it has.

    In a pretrained Gemma, the embedding row of `<end_of_turn>` lies among those of its unused tokens, some of which are
    more likely where a demonstration ends. Adapters do not change the embedding, which is also the head.

    Args:
        policy: the policy before its training.
        demonstrations: tokens of prompts and of completions, which end with `<end_of_turn>`.
    """
    known = policy.tokenizer.get_vocab()
    unused = sorted(row for text, row in known.items() if re.fullmatch(r"<unused\d+>", text))
    if not unused or not demonstrations or END_OF_TURN not in known:
        return None
    end, rows_VD = known[END_OF_TURN], policy.model.get_input_embeddings().weight.detach()
    cosine = torch.cosine_similarity(rows_VD[end].float(), rows_VD[unused].float(), dim=-1).mean().item()
    if cosine < NEAR:
        return None
    shortest = sorted(demonstrations, key=lambda each: len(each[0]) + len(each[1]))[:ASKED]
    before = [[*prompt, *completion[:-1]] for prompt, completion in shortest]
    with torch.no_grad(), evaluating(policy.model):
        logits_MV = chunk_logits(*completion_hidden(policy.model, before, [[end]] * len(before)))
    likelier = (logits_MV[:, unused] >= logits_MV[:, [end]]).float().mean().item()
    if likelier < LIKELIER:
        return None
    return (
        f"the policy has never learnt {END_OF_TURN}: where demonstrations end, {likelier:.0%} of the unused tokens are "
        f"more likely, and its embedding row is like theirs (cosine {cosine:.2f}). Adapters do not change that, so "
        "its answers will rarely end; fine-tune all weights first, in a stage of kind sft without lora"
    )
