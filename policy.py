"""The model under training, for sft.py and rl_gppo.py: loading, head without full logits, micro-batches."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from klear.layout import APART, can_share
from runs import die, one_line, rank

disable_progress_bar()  # transformers' own bars for every file would drown ours
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each retry; our line tells the end of it
LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError,
               StrictDataclassError)
# what models do to h·Wᵀ: Gemma, Granite, Cohere, Falcon-H1, RecurrentGemma, xLSTM, in this order
HEAD_KNOBS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier", "logits_soft_cap",
              "output_logit_soft_cap")


# -------------------------------------------------------------------------------------------------------------- loading
def load_tokenizer(path: str):
    """The tokenizer of a Hugging Face folder or hub name; one line for a user whose folder has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        if tokenizer is None or not tokenizer("1+1=")["input_ids"]:  # transformers makes an empty one of nothing
            raise ValueError("no tokenizer")
        return tokenizer
    except LOAD_ERRORS as error:
        die(f"model: {path}: no usable tokenizer (tokenizer.json, tokenizer_config.json) there: {one_line(error)}")


def load_model(path: str, dtype=torch.float32, **options) -> nn.Module:
    """The model, in fp32 for training: Accelerate's bf16 computes in bf16 and keeps these as master weights."""
    try:
        lm, info = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True, **options)
    except LOAD_ERRORS as error:
        die(f"model: {path}: {one_line(error)}")
    if missing := sorted(info["missing_keys"]):
        die(f"model: {path}: its weights lack {len(missing)} tensors (first: {missing[0]})")
    return lm


def warn_of_emulated_bf16(mend: str) -> None:
    """One line for who computes in bf16 on an x86 CPU that cannot: it is emulated there, far slower than fp32."""
    can = torch.cpu.get_capabilities()
    if can.get("architecture") == "x86_64" and not (can.get("avx512_bf16") or can.get("amx_bf16")):
        print("this CPU has no bf16 arithmetic (avx512_bf16, amx_bf16) and emulates it, far slower than fp32; "
              f"{mend}", file=sys.stderr)


def pick_dtype(dtype: str) -> str:
    """The type that an engine computes in; auto: bfloat16 on a GPU, float32 on a CPU."""
    if dtype == "bfloat16" and not torch.cuda.is_available() and rank() == 0:
        warn_of_emulated_bf16("give --dtype float32")
    return dtype if dtype != "auto" else "bfloat16" if torch.cuda.is_available() else "float32"


def check_weights(path: str) -> None:
    """One line for a folder whose weights are missing or cut off, before an engine starts; the hub checks its own."""
    folder = Path(path)
    try:
        if folder.is_dir():
            files = list(folder.glob("*.safetensors")) + list(folder.glob("*.bin"))
            for index in folder.glob("*.index.json"):
                files += {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
            for file in files or die(f"model: {path}: no weights there (*.safetensors)"):
                if file.suffix == ".safetensors":
                    with safe_open(file, "pt"):  # reads the header and compares it with the length of the file
                        pass
    except LOAD_ERRORS as error:
        die(f"model: {path}: {one_line(error)}")


def load_policy(cfg, path: str) -> nn.Module:
    """The model to train; refused where its head is not a plain matrix."""
    lm = load_model(path, attn_implementation=cfg.attention)
    head = lm.get_output_embeddings()
    config = lm.config.get_text_config()
    special = any(getattr(config, name, None) not in (None, 0, 1) for name in HEAD_KNOBS)
    if head is None or getattr(head, "bias", None) is not None or special:
        die(f"model: {path}: its head is not a plain matrix (bias, soft-capping, scaling); HeadLogprobs would be wrong")
    if cfg.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm


def size_of(lm: nn.Module) -> str:
    """How many parameters there are, and how many are trained where not all (LoRA)."""
    whole, trained = lm.num_parameters() / 1e6, lm.num_parameters(only_trainable=True) / 1e6
    return f"{whole:.1f}M parameters" + (f" ({trained:.3g}M trained)" if trained < whole else "")


def end_of_turn(generation_config, tokenizer) -> tuple[list[int], int]:
    """(tokens that end a response, padding token)."""
    eos, pad = generation_config.eos_token_id, tokenizer.pad_token_id
    stop_ids = sorted({*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id} - {None})
    if not stop_ids:
        die("model: no token ends a response; give its tokenizer_config.json an eos_token, or its "
            "generation_config.json an eos_token_id")
    return stop_ids, pad if pad is not None else stop_ids[0]


def finish_generation_config(lm: nn.Module, end_ids: list[int]) -> None:
    """Adds the tokens that end a turn in the training data to eos_token_id: a base model (Qwen3-8B-Base) knows
    <|endoftext|> alone, and rl_gppo.py and vLLM would not stop at the template's <|im_end|>."""
    eos = (config := lm.generation_config).eos_token_id
    known = [i for i in (eos if isinstance(eos, list) else [eos]) if i is not None]
    if set(end_ids) - set(known):
        config.eos_token_id = end_ids + [i for i in known if i not in end_ids]
        config._from_model_config = False  # or generate would take eos from config.json again
    try:
        config.validate(strict=True)
    except ValueError:  # temperature without do_sample, found in published models, would stop save_pretrained
        config.do_sample = True


# ----------------------------------------------------------------------------------------------------------------- head
@contextmanager
def onednn(bf16: bool) -> Iterator[None]:
    """On a CPU, bf16 lets oneDNN take fp32 products and round their factors, not their sums: MKL, which has them
    otherwise, is half as fast on AMD. Without bf16 units oneDNN or MKL compute as before."""
    matmul, before = torch.backends.mkldnn.matmul, torch.backends.mkldnn.matmul.fp32_precision
    if bf16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        if bf16:
            matmul.fp32_precision = before


class HeadLogprobs(torch.autograd.Function):
    """log softmax(h·Wᵀ/τ)[target] and its entropy, (N,) fp32 each, without ever holding (N, V) logits.

    Logits exist for `chunk` tokens at a time, in fp32 (a bf16 head adds noise to the ratio), and are recomputed in
    backward. With p = softmax: d logprob/d logits = (onehot - p)/τ; the entropy, for masks and logs, has no gradient.
    Of a frozen head (LoRA) only d logprob/d hidden = (W[target] - p·W)/τ is wanted: forward has what it takes.
    """

    @staticmethod
    def chunks(hidden: Tensor, weight: Tensor, temperature: float, chunk: int) -> Iterator[tuple[slice, Tensor]]:
        """(which tokens, their logits (n, V) fp32); one buffer for all chunks, so that two never exist together."""
        buffer = hidden.new_empty(min(chunk, len(hidden)), len(weight), dtype=torch.float32)
        for at in range(0, len(hidden), chunk):
            h = hidden[at:at + chunk]
            x = buffer[:len(h)]
            if h.is_cuda and h.dtype == weight.dtype != torch.float32:
                torch.mm(h, weight.t(), out_dtype=torch.float32, out=x)  # no fp32 copy of W
            else:
                torch.mm(h.float(), weight.float().t(), out=x)
            yield slice(at, at + len(h)), x if temperature == 1 else x.div_(temperature)

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk, with_entropy):
        device, ctx.dtypes = hidden.device.type, (hidden.dtype, weight.dtype)
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if device == "cuda" and autocast:  # tensor cores; one cast of W for all chunks
            hidden, weight = hidden.to(autocast), weight.to(autocast)
        ctx.bf16 = device == "cpu" and autocast == torch.bfloat16
        logprobs, lse, entropy, sums = hidden.new_empty(4, len(targets), dtype=torch.float32)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[:2] == (True, False) else None  # d logprob/d hidden·τ
        with torch.autocast(device, enabled=False), onednn(ctx.bf16):
            for part, logits in HeadLogprobs.chunks(hidden, weight, temperature, chunk):
                # the entropy needs exp(x) beside x: for 8M logits at a time (55 tokens of Qwen3)
                tensors = logits, targets[part, None], logprobs[part], lse[part], entropy[part], sums[part]
                for x, target, logprob, log_sum, h, total in zip(
                        *(t.split(max(1, 2**23 // len(weight))) for t in tensors)):
                    top = x.amax(-1, keepdim=True)
                    x -= top
                    picked = x.gather(-1, target).squeeze(-1)
                    e = x.exp() if with_entropy else x.exp_()
                    torch.sum(e, -1, out=total)
                    torch.sub(picked, total.log(), out=logprob)
                    torch.add(total.log(), top.squeeze(-1), out=log_sum)
                    if with_entropy:
                        torch.sub(total.log(), e.mul_(x).sum(-1) / total, out=h)
                if slope is not None:
                    x, total = logits.exp_() if with_entropy else logits, sums[part, None]  # p is x / total
                    x.scatter_add_(-1, targets[part, None], -total)
                    torch.mm(x.to(hidden.dtype), weight.to(hidden.dtype), out=slope[part]).div_(-total)
        ctx.save_for_backward(*((hidden, weight, targets, lse) if slope is None else (slope,)))
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad, _):
        if not ctx.needs_input_grad[1]:
            return (ctx.saved_tensors[0] * (grad[:, None] / ctx.temperature)).to(ctx.dtypes[0]), *[None] * 5
        hidden, weight, targets, lse = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False), onednn(ctx.bf16):
            for part, x in HeadLogprobs.chunks(hidden, weight, ctx.temperature, ctx.chunk):
                h, g = hidden[part], grad[part, None] / ctx.temperature
                x.sub_(lse[part, None]).exp_().mul_(-g).scatter_add_(-1, targets[part, None], g)
                x = x.to(h.dtype)
                torch.mm(x, weight.to(h.dtype), out=grad_hidden[part])
                if h.is_cuda and h.dtype != torch.float32:  # the sum over chunks is rounded once, not every time
                    torch.addmm(grad_weight, x.t(), h, out_dtype=torch.float32, out=grad_weight)
                elif h.dtype != torch.float32:
                    grad_weight += x.t() @ h
                else:
                    grad_weight.addmm_(x.t(), h)
        return grad_hidden.to(ctx.dtypes[0]), grad_weight.to(ctx.dtypes[1]), None, None, None, None


class Policy(nn.Module):
    """The language model with its head inside one root forward: DDP and FSDP2 hook that and see all parameters used."""

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm
        self._no_split_modules = lm._no_split_modules  # Accelerate's FSDP2 wraps these layers
        if lm.config._attn_implementation == "sdpa" and can_share(lm):
            lm.set_attn_implementation("apart")  # sdpa, but for batches whose prompts lie apart and short rows on a CPU

    def forward(self, batch: dict, chunk: int, temperature: float = 1.0, entropy: bool = False):
        """Log-probabilities and entropies (nats), (N,) fp32 each, of the N tokens batch["targets"]; batch["index"] are
        the flat positions of input_ids (rows, length) that predict them; rows may share a prefix (klear/layout.py)."""
        rows = {"input_ids", "position_ids", "attention_mask", *APART} & batch.keys()
        states = self.lm.base_model(**{key: batch[key] for key in rows}, use_cache=False).last_hidden_state
        hidden = states.flatten(0, 1)[batch["index"]]  # (N, D)
        weight = self.lm.get_output_embeddings().weight
        return HeadLogprobs.apply(hidden, weight, batch["targets"], temperature, chunk, entropy)


# -------------------------------------------------------------------------------------------------------- micro-batches
def plan_microbatches(lengths: list[int], ranks: int, token_budget: int, packed: bool) -> list[list[list[int]]]:
    """[rank][micro-batch] -> positions, each micro-batch within token_budget (padding included unless packed).

    A pure function of global data, so that every rank knows the plan of all without a message. All ranks get the same
    number of micro-batches, the last ones perhaps empty: a rank that stops early hangs the others' collectives."""
    by_rank, load = [[] for _ in range(ranks)], [0] * ranks
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):  # longest first to the least loaded rank
        by_rank[rank := load.index(min(load))].append(i)
        load[rank] += lengths[i]
    plan = [(fill_rows if packed else cut_alike)(positions, lengths, token_budget) for positions in by_rank]
    most = max(map(len, plan))
    return [micros + [[]] * (most - len(micros)) for micros in plan]


def fill_rows(positions: list[int], lengths: list[int], token_budget: int) -> list[list[int]]:
    """Each sample, longest first, into the first row that has room for it."""
    micros, room = [], []
    for i in positions:
        at = next((k for k, left in enumerate(room) if lengths[i] <= left), len(room))
        if at == len(room):
            micros, room = [*micros, []], [*room, token_budget]
        micros[at].append(i)
        room[at] -= lengths[i]
    return micros


def cut_alike(positions: list[int], lengths: list[int], token_budget: int) -> list[list[int]]:
    """Sorted by length, rows of one micro-batch are alike and little is padding. Of all cuts the cheapest, by dynamic
    programming over its last micro-batch: tokens computed, and 1/32 of the budget for each micro-batch, or a GPU would
    starve on small ones."""
    best = [(0.0, 0)]  # [end] -> (cost of the first `end` samples, where the last micro-batch begins)
    for end in range(1, len(positions) + 1):
        choices = []
        for begin in range(end - 1, -1, -1):
            size = lengths[positions[begin]] * (end - begin)
            if size > token_budget and begin < end - 1:
                break
            choices.append((best[begin][0] + size + token_budget / 32, begin))
        best.append(min(choices))
    micros, end = [], len(positions)
    while end:
        micros.append(positions[best[end][1]:end])
        end = best[end][1]
    return micros[::-1]
