"""How samples lie in the tensors of a micro-batch: a row each, all packed in one, or packed with shared prompts apart.

A prompt that responses of a micro-batch share is computed once: all but its last token lie before the responses in the
packed row, each response attends to it by index, and gradients add up in it (`attend`). It takes a mask, (B, 1, L, P+L)
for B responses of at most L tokens after prompts of at most P, so it is done where it saves an eighth of the tokens: at
32K tokens a response it would not pay.
"""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def lay_out(rows: list[Tensor], packed: bool, pad_id: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """(input_ids and position_ids, flat position at which each row starts). Padded on the right: with causal attention
    nothing real sees the padding, so there is no mask to build. Packed: all in one row, position_ids restart, and
    attention keeps the rows apart by them."""
    positions, width = [torch.arange(len(row)) for row in rows], max(map(len, rows))
    if packed:
        starts = np.cumsum([0] + [len(row) for row in rows[:-1]])
        return {"input_ids": torch.cat(rows)[None], "position_ids": torch.cat(positions)[None]}, starts
    return {"input_ids": nn.utils.rnn.pad_sequence(rows, True, pad_id),
            "position_ids": torch.arange(width).expand(len(rows), -1)}, np.arange(len(rows)) * width


# Families whose layers hand `attend` its indices and take positions as they are told (tests/test_update.py tries each).
# Others may drop either without a word; they train as transformers lays them out.
FAMILIES = set("gemma glm4 granite llama mistral olmo2 phi3 qwen2 qwen2_moe qwen3 qwen3_moe smollm3".split())


def can_share(lm) -> bool:
    """Whether the model is of such a family and every layer attends to all tokens before."""
    window = getattr(lm.config, "sliding_window", None)  # of all layers, where (as in Mistral) no types are given
    types = getattr(lm.config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
    return lm.config.model_type in FAMILIES and {*types} <= {"full_attention"}


def worth_sharing(samples: list, lm) -> bool:
    """Whether a micro-batch of these samples holds enough prompts that are equal, for a model that can share them."""
    prefixes, tokens = [s.prompt.ids[:-1] for s in samples], sum(len(s.prompt.ids) + len(s.response) for s in samples)
    saved = sum(map(len, prefixes)) - sum(map(len, set(map(tuple, prefixes))))
    return saved > 0 and 8 * saved >= tokens and can_share(lm) and lm.config._attn_implementation == "apart"


def distinct(rows: list[list[int]], pad_id: int, device, left: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(ids (U, length) of the U different rows, padded; which of them are no padding; (B,) which one each row is)."""
    seen = {row: k for k, row in enumerate(dict.fromkeys(map(tuple, rows)))}
    side = dict(batch_first=True, padding_side="left" if left else "right")
    pad = lambda tensors, value: nn.utils.rnn.pad_sequence(tensors, padding_value=value, **side).to(device)
    ids = [torch.tensor(row, dtype=torch.long) for row in seen]
    which = torch.tensor([seen[tuple(row)] for row in rows], device=device)
    return pad(ids, pad_id), pad([torch.ones_like(row) for row in ids], 0), which


def lay_apart(prefixes: list[list[int]], rows: list[Tensor]) -> tuple[dict[str, Tensor], np.ndarray]:
    """(the U different prefixes and then the B rows that go on after them, all in one packed row of N tokens, with the
    indices by which `attend` takes them apart; flat position at which each row starts)."""
    ids, real, which = distinct(prefixes, 0, None)  # (U, P)
    real, lengths, at = real.bool(), torch.tensor([len(row) for row in rows]), torch.arange(max(map(len, rows)))
    own = at < lengths[:, None]  # (B, L); `real` and `own` are False at padding
    number = lambda mask, start: (start - 1 + mask.flatten().cumsum(0).view_as(mask)) * mask
    prefix, response = number(real, 0), number(own, int(real.sum()))  # flat positions in the packed row; 0 at padding
    causal = (at[:, None] >= at).expand(len(rows), -1, -1)
    after = real.sum(-1)[which, None] + at  # positions of a row's tokens behind its prefix
    return {"input_ids": torch.cat([ids[real], *rows])[None],
            "position_ids": torch.cat([torch.arange(ids.shape[1]).expand_as(ids)[real], after[own]])[None],
            "attention_mask": torch.cat([real[which][:, None].expand(-1, len(at), -1), causal], -1)[:, None],
            "prefix": prefix, "response": response, "context": torch.cat([prefix[which], response], -1),
            "back": torch.cat([real.flatten(), own.flatten()]).nonzero()[:, 0]}, response[:, 0].numpy()


# What `attend` needs of a batch: positions in the packed row (U, P), (B, L), (B, P + L), and, (N,), where each token of
# that row is among the U·P + B·L padded ones.
APART = ("prefix", "response", "context", "back")


def attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, prefix=None,
           response=None, context=None, back=None, **options) -> tuple[Tensor, None]:
    """The sdpa attention, (B, H, L, D) -> (B, L, H, D). In a batch of lay_apart, (1, H, N, D) -> (1, N, H, D), where
    each prefix attends to itself and each response to its prefix and itself."""
    if prefix is None:
        plain = query.device.type == "cpu" and query.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        short = query.shape[2] == 1 or query.shape[2] <= key.shape[2] <= 96
        if plain and short and not options.get("dropout"):
            return products(query, key, value, attention_mask, options["scaling"]), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    take = lambda x, at: nn.functional.embedding(at, x[0].transpose(0, 1).flatten(1)).unflatten(
        -1, (x.shape[1], -1)).transpose(1, 2)  # (1, H, N, D), (R, L) -> (R, H, L, D); x[at]'s backward is far slower
    first, _ = attend(module, take(query, prefix), take(key, prefix), take(value, prefix), None, **options)
    rest, _ = attend(module, take(query, response), take(key, context), take(value, context), attention_mask, **options)
    padded = torch.cat([first.flatten(0, 1), rest.flatten(0, 1)])  # (U·P + B·L, H, D)
    return nn.functional.embedding(back, padded.flatten(1)).view(1, -1, *padded.shape[1:]), None


def products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """softmax(q·kᵀ)·v, for (B, H, L, D) and the (B, KV, K, D) that H/KV heads share, causal without a mask. On a CPU
    torch's own kernel takes up to twice as long for rows of less than about 100 tokens, or of one."""
    length, heads = query.shape[2], key.shape[1]
    scores = (query * scaling).unflatten(1, (heads, -1)).flatten(2, 3) @ key.transpose(2, 3)  # (B, KV, H/KV·L, K)
    if mask is None and length > 1:
        mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    if mask is not None:
        lowest = torch.finfo(query.dtype).min  # not -inf: padding on the left sees nothing, and must not become NaN
        hidden = query.new_zeros(mask.shape).masked_fill(~mask, lowest)[:, :, None]
        scores = (scores.unflatten(2, (-1, length)) + hidden).flatten(2, 3)
    return (scores.softmax(-1) @ value).unflatten(2, (-1, length)).flatten(1, 2).transpose(1, 2).contiguous()


AttentionInterface.register("apart", attend)
AttentionMaskInterface.register("apart", sdpa_mask)
