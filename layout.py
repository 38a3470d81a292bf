"""How samples lie in the tensors of a micro-batch: a row each, all packed in one, or with shared prompts apart.

A prompt that responses of a micro-batch share is computed once: keys and values of all but its last token then stand
before each response, and gradients add up in them. It takes an attention mask, which keeps out flash attention's
kernel, and a cache, which layers that are recomputed in backward have not; so it is done where it saves an eighth of
the tokens or more. At 32K tokens a response it would save nothing worth having.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import DynamicCache


def lay_out(rows: list[Tensor], packed: bool, pad_id: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """(input_ids, position_ids, flat position at which each row starts). Padded on the right: with causal attention
    nothing real sees the padding, so there is no mask to build. Packed: all in one row, position_ids restart, and
    attention keeps the rows apart by them."""
    positions, width = [torch.arange(len(row)) for row in rows], max(map(len, rows))
    if packed:
        return torch.cat(rows)[None], torch.cat(positions)[None], np.cumsum([0] + [len(row) for row in rows[:-1]])
    padded = nn.utils.rnn.pad_sequence(rows, True, pad_id)
    return padded, torch.arange(width).expand(len(rows), -1), np.arange(len(rows)) * width


def worth_sharing(samples: list, lm, cfg) -> bool:
    """Whether a micro-batch of these samples holds enough prompts that are equal, and the layers of the model remember
    keys and values of all tokens and nothing else. Not for shards (FSDP2): all ranks must gather equally often."""
    prompts, tokens = [s.prompt.ids for s in samples], sum(len(s.prompt.ids) + len(s.response) for s in samples)
    window = getattr(lm.config, "sliding_window", None)  # of all layers, where (as in Mistral) no types are given
    types = getattr(lm.config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
    plain = not lm._is_stateful and {*types} <= {"full_attention"}
    plain = plain and not any(isinstance(module, FSDPModule) for module in lm.modules())
    saved = sum(map(len, prompts)) - sum(map(len, set(map(tuple, prompts))))
    return plain and not cfg.gradient_checkpointing and cfg.attention in ("sdpa", "eager") and 8 * saved >= tokens


def distinct(rows: list[list[int]], pad_id: int, device, left: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(ids (U, length) of the U different rows, padded; which of them are no padding; (B,) which one each row is)."""
    seen = {row: k for k, row in enumerate(dict.fromkeys(map(tuple, rows)))}
    side = dict(batch_first=True, padding_side="left" if left else "right")
    pad = lambda tensors, value: nn.utils.rnn.pad_sequence(tensors, padding_value=value, **side).to(device)
    ids = [torch.tensor(row, dtype=torch.long) for row in seen]
    which = torch.tensor([seen[tuple(row)] for row in rows], device=device)
    return pad(ids, pad_id), pad([torch.ones_like(row) for row in ids], 0), which


def shared_prefix(prefixes: list[list[int]], input_ids: Tensor, position_ids: Tensor, pad_id: int) -> dict[str, Tensor]:
    """What a batch holds beside its rows input_ids (B, length), which go on after `prefixes`, one a row."""
    ids, real, which = distinct(prefixes, pad_id, input_ids.device)
    mask = torch.cat([real[which], torch.ones_like(input_ids)], 1)  # (B, prefix + length)
    return {"prefix_ids": ids, "prefix_of": which, "attention_mask": mask,
            "position_ids": position_ids + real[which].sum(-1, keepdim=True)}


def cache_of(batch: dict, lm) -> DynamicCache | None:
    """Keys and values of each row's prefix, with gradients; None where the rows of a batch are whole."""
    if "prefix_ids" not in batch or not batch["prefix_ids"].numel():
        return None
    cache = DynamicCache()  # (padded on the right: with causal attention nothing real sees the padding)
    lm.base_model(input_ids=batch["prefix_ids"], past_key_values=cache, use_cache=True)
    cache.batch_select_indices(batch["prefix_of"])
    return cache
