"""Memory and FLOPs of an RL run before it is paid for, from the shapes in the model's config; no weights are loaded.

    python plan.py --config recipes/klear_math_8b.yaml --gpus 8 --model Qwen/Qwen3-8B    # or --gpus 1 --lora_rank 64
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

import rl_gppo
from policy import LOAD_ERRORS
from runs import Count, Positive, die, one_line, read_config

# layers, width, MLP width, heads, KV heads, tied head: for where the hub is out of reach (head dim 128, 151,936 words)
KNOWN = {"Qwen3-0.6B": (28, 1024, 3072, 16, 8, True), "Qwen3-1.7B": (28, 2048, 6144, 16, 8, True),
         "Qwen3-4B": (36, 2560, 9728, 32, 8, True), "Qwen3-8B": (36, 4096, 12288, 32, 8, False),
         "Qwen3-14B": (40, 5120, 17408, 40, 8, False), "Qwen3-32B": (64, 5120, 25600, 64, 8, False)}


@dataclass
class Config(rl_gppo.Config):
    # plan
    gpus: Count = 8  # GPUs of the run
    gpu_gb: Positive = 80.0  # memory of one of them


def model_shapes(name: str) -> tuple:  # of a folder, the hub, or KNOWN: (config, model without memory)
    short = name.split("/")[-1].replace("Klear-Reasoner", "Qwen3").removesuffix("-Base").removesuffix("-SFT")
    if not Path(name).exists() and (name.count("/") != 1 or name.startswith("runs/")):
        die(f"model: {name} is not there yet; an earlier stage makes it: plan with --model Qwen/Qwen3-8B or the like")
    keys = "num_hidden_layers hidden_size intermediate_size num_attention_heads num_key_value_heads tie_word_embeddings"
    try:
        config = AutoConfig.from_pretrained(name) if Path(name).exists() or short not in KNOWN else Qwen3Config(
            **dict(zip(keys.split(), KNOWN[short])), head_dim=128, vocab_size=151936)
        with torch.device("meta"):
            return config.get_text_config(), AutoModelForCausalLM.from_config(config)
    except LOAD_ERRORS as error:
        die(f"model: {name}: {one_line(error)}; shapes known without the hub: {', '.join(KNOWN)}")


def plan(cfg: Config) -> str:
    """What a run needs per GPU, in bytes. P parameters, N GPUs (FSDP2, bf16 compute, fp32 master weights), L layers, D
    width, I MLP width, V vocabulary, h = heads times head dim, k = KV heads times head dim, S = max_prompt +
    max_response tokens, B = max(token_budget, S).
      weights, gradients, Adam   4P/N, 4P/N, 8P/N; LoRA: 2P on every GPU, and 16T, T = r·(in + out) of all linear layers
      reference (kl_coef > 0)    2P: a whole copy in bf16 on every GPU, at all times; LoRA: none
      gathered in bf16           2·(embedding + head + 2 layers), and as much again for their gradients; LoRA: none
      activations                2·B·D·L kept by checkpointing + one layer recomputed, 2·2·B·(4D + 2h + 2k + 3I);
                                 without checkpointing half of that a layer, L times
      head                       6·logit_chunk·V (logits fp32, gradient bf16) + 4·V·D (gradient of W; LoRA: none)
      vLLM                       vllm_memory of the GPU: weights 2P/tp, 2 GB of its own, KV cache 4·L·k/tp a token
      FLOPs a token              2P + 2·L·h·S (causal attention) each: rollout, old logprobs, reference, forward,
                                 recomputation by checkpointing; backward: twice that, LoRA once
    """
    config, lm = model_shapes(cfg.model)
    n, tp, limit, lora = cfg.gpus, cfg.vllm_tensor_parallel, cfg.gpu_gb * 1e9, cfg.lora_rank > 0
    p, layers, width, vocab = lm.num_parameters(), config.num_hidden_layers, config.hidden_size, config.vocab_size
    linear = [m for m in lm.base_model.modules() if isinstance(m, torch.nn.Linear)]
    heads, t = config.num_attention_heads, cfg.lora_rank * sum(m.in_features + m.out_features for m in linear)
    head_dim = getattr(config, "head_dim", None) or width // heads
    h, k = heads * head_dim, (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    span = (cfg.max_prompt_tokens or 2048) + (cfg.max_response_tokens or 4096)
    batch, ends = max(cfg.token_budget, span), vocab * width * (1 if config.tie_word_embeddings else 2)
    one_layer = 2 * 2 * batch * (4 * width + 2 * h + 2 * k + 3 * (getattr(config, "intermediate_size", 0) or 4 * width))
    state = [("frozen weights, bf16", 2 * p), ("adapters, gradients, Adam, fp32", 16 * t)] if lora else [
        ("weights, fp32", 4 * p / n), ("gradients, fp32", 4 * p / n), ("Adam states, fp32", 8 * p / n),
        ("gathered layers, embedding, head", 2 * 2 * (ends + 2 * (p - ends) / layers))]
    reference = [("reference of kl_coef, bf16", 2 * p)] if cfg.kl_coef and not lora else []
    kept = 2 * batch * width * layers + one_layer if cfg.gradient_checkpointing else one_layer / 2 * layers
    update = [
        *state, *reference, (f"activations of {batch:,} tokens", kept),
        (f"head, {cfg.logit_chunk} tokens at a time", 6 * cfg.logit_chunk * vocab + (0 if lora else 4 * vocab * width))]
    cached = max(cache := cfg.vllm_memory * limit - 2 * p / tp - 2e9, 0) / (4 * layers * k / tp)
    rollout = [("training state that stays", 2 * p + 12 * t if lora else 12 * p / n), *reference,
               ("vLLM weights, bf16", 2 * p / tp), ("vLLM activations, graphs", 2e9), ("vLLM KV cache", cache)]
    lines = [f"{cfg.model}: {p / 1e9:.2f}B parameters on {n} GPUs of {cfg.gpu_gb:g} GB"]
    for phase, rows, advice in [
            ("update", update, "lora_rank, gradient_checkpointing, smaller token_budget, fsdp_offload_params"),
            ("rollout", rollout, "another vllm_memory, vllm_tensor_parallel, fsdp_offload_params")]:
        fits = (total := sum(size for _, size in rows)) < 0.95 * limit and cached > span  # 5 % for fragmentation
        verdict = "fits" if fits else f"DOES NOT FIT; mend: more GPUs, {advice}"
        lines += ["", f"{phase}, GB per GPU", *(f"  {name:<36}{size / 1e9:8.2f}" for name, size in rows),
                  f"  {'together':<36}{total / 1e9:8.2f}  {verdict}"]
    tokens = cfg.prompts_per_step * cfg.responses_per_prompt * (cfg.max_response_tokens or 4096)
    flops = tokens * (2 * p + 2 * layers * h * span) * (5 - lora + cfg.gradient_checkpointing + bool(cfg.kl_coef))
    lines += ["", f"KV cache: {cached:,.0f} tokens, {cached / span:.1f} full responses at once on each engine",
              f"a step: {tokens:,} tokens at most ({cfg.prompts_per_step} x {cfg.responses_per_prompt} responses),",
              f"  {flops:.2e} FLOPs, {flops / n / 989e12 / 24:.0f} minutes at 40 % of an H100's 989 TFLOP/s (bf16)"]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    print(plan(read_config(Config, argv, "model max_response_tokens token_budget vllm_memory gpus gpu_gb")))


if __name__ == "__main__":
    main(sys.argv[1:])
