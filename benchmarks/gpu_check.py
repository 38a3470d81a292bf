"""What one GPU does with rl_gppo.py, with nothing but torch, transformers and accelerate installed.

    python benchmarks/gpu_check.py --out gpu_check.json                 # a random-weight Qwen3-0.6B, bf16; ten minutes
    python benchmarks/gpu_check.py --device cpu --tiny --out check.json # the same code on a toy-sized model, to try it

1. Chunked head against full logits: errors of log-probability, entropy and gradients against float64, both in bf16.
2. One RL update (update_policy: the forward that gives the old log-probabilities is that of the update, backward, AdamW
   on fp32 master weights, gradient checkpointing) at several lengths: tokens/s, share of the GPU's peak FLOP/s, peak
   memory. Anchor: prime-rl trains a 0.6B model on one H100 at 16K with 11.9k tokens/s in 12.5 GiB.
3. Generation by transformers (HFRollout), tokens/s.
4. 20 steps of GPPO on the toy model with transformers' generate: accuracy must rise.

FLOPs of an update: 6·P a token of forward and backward, 2·P for the recomputation by checkpointing, and attention
2·L·h·S forward, as in plan.py. A part that fails is reported in the JSON and does not stop the others; exit code 1
then.
"""

import argparse
import concurrent.futures
import dataclasses
import gc
import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import rewards  # noqa: E402  (the root is known only now)
import rl_gppo  # noqa: E402
import runs  # noqa: E402
import toy  # noqa: E402
from policy import HeadLogprobs, Policy  # noqa: E402
from klear.ranks import Run  # noqa: E402

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}  # dense FLOP/s, data sheets
SIZES = {  # Qwen3-0.6B as published; and one that a CPU can do
    "0.6B": dict(vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
                 num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960,
                 rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "tiny": dict(vocab_size=2048, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, max_position_embeddings=2048),
}


class InProcess:
    """Stands for rewards.RewardPool, for toy sums: no worker; without math_verify integers alone can be right."""

    def submit(self, item: dict) -> concurrent.futures.Future:
        future = concurrent.futures.Future()
        try:
            future.set_result(rewards.score(item["data_source"], item["response"], item["ground_truth"],
                                            prompt_tail=item["prompt_tail"]))
        except ModuleNotFoundError:
            future.set_result(rewards.Reward(-1.0, False, "wrong"))
        return future


def make_run(args, **knobs) -> Run:
    """A run with random weights, without a tokenizer: prompts are token ids."""
    accelerator = Accelerator(cpu=args.device == "cpu", mixed_precision="bf16")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES["tiny" if args.tiny else "0.6B"], tie_word_embeddings=True))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    cfg = rl_gppo.Config(lr=1e-6, output_dir=tempfile.mkdtemp(), gradient_checkpointing=True, **knobs)
    policy = Policy(model)
    policy, optimizer = accelerator.prepare(policy, torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True))
    return Run(cfg, accelerator, policy, optimizer, None, [], 0)


def samples_of(count: int, length: int, vocab: int) -> list[rl_gppo.Sample]:
    rng = random.Random(0)
    prompt = rl_gppo.Prompt([rng.randrange(vocab) for _ in range(length // 8)], "", "math_verify", "1")
    size = length - len(prompt.ids)
    return [rl_gppo.Sample(prompt, i, [rng.randrange(vocab) for _ in range(size)], [-1.0] * size, False,
                           rewards.Reward(1.0, i % 2 == 0, "correct"), 1.0 if i % 2 == 0 else -1.0)
            for i in range(count)]


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def check_head(args) -> dict:
    """Mean and largest error in nats (entropy, log-probability), and relative error of the gradients."""
    n, width, vocab = (64, 64, 2048) if args.tiny else (512, 1024, 151_936)
    torch.manual_seed(0)
    hidden = torch.randn(n, width, device=args.device).bfloat16().requires_grad_()
    weight = (torch.randn(vocab, width, device=args.device) * 0.05).bfloat16().requires_grad_()
    targets, upstream = torch.randint(vocab, (n,), device=args.device), torch.randn(n, device=args.device)

    def full(h, w):
        logits = (h @ w.t()).log_softmax(-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1)
        return logprobs, -(logits.exp() * logits).sum(-1)

    ways = {"float64": lambda h, w: full(h.double(), w.double()), "full bf16 logits": full,
            "chunked": lambda h, w: HeadLogprobs.apply(h, w, targets, 1.0, n // 3, True),
            "frozen": lambda h, w: HeadLogprobs.apply(h, w.detach(), targets, 1.0, n // 3, True)}  # LoRA's
    results = {}
    for name, way in ways.items():
        logprobs, entropy = way(hidden, weight)
        grads = torch.autograd.grad((logprobs * upstream).sum(), (hidden, weight), allow_unused=True)
        results[name] = [x.detach().double() for x in (logprobs, entropy, *grads) if x is not None]
    exact = results.pop("float64")
    return {name: {"logprob_mean": (got[0] - exact[0]).abs().mean().item(),
                   "logprob_max": (got[0] - exact[0]).abs().max().item(),
                   "entropy_max": (got[1] - exact[1]).abs().max().item(),
                   **{key: ((x - y).norm() / y.norm()).item()
                      for key, x, y in zip(("grad_hidden", "grad_weight"), got[2:], exact[2:])}}
            for name, got in results.items()}


def check_update(args, length: int) -> dict:
    """One update of as many samples as make 64K tokens (tiny: 4), one micro-batch a sample."""
    run = make_run(args, token_budget=length, minibatch_prompts=10**6)
    config = run.bare.lm.config
    samples = samples_of(4 if args.tiny else max(2, 65_536 // length), length, config.vocab_size)
    tokens = len(samples) * length
    rl_gppo.update_policy(samples, 100, run)  # warms up: kernels are chosen, Adam's states made
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(3):
        synchronize(args.device)
        begun = time.perf_counter()
        metrics = rl_gppo.update_policy(samples, 100, run)
        synchronize(args.device)
        seconds.append(time.perf_counter() - begun)
    p, best = run.bare.lm.num_parameters(), min(seconds)
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    flops = tokens * 4 * (2 * p + attention)  # forward, recomputation, twice for backward
    peak = next((v for k, v in PEAK_BF16.items() if args.device != "cpu" and k in torch.cuda.get_device_name()), None)
    return {"length": length, "samples": len(samples), "tokens_per_s": tokens / best, "seconds": best,
            "flops_of_peak": flops / best / peak if peak else None,
            "mfu": flops * 3 / 4 / best / peak if peak else None,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if args.device != "cpu" else None,
            "grad_norm": metrics["grad_norm"]}


def check_generation(args) -> dict:
    run = make_run(args, max_response_tokens=16 if args.tiny else 256, rollout_batch=64)
    run.bare.lm.gradient_checkpointing_disable()
    engine = rl_gppo.HFRollout(run)
    samples = samples_of(*((8, 64) if args.tiny else (64, 1024)), run.bare.lm.config.vocab_size)
    requests = [(s.prompt.ids, i) for i, s in enumerate(samples)]
    list(engine.generate(requests[:2], 1.0))
    synchronize(args.device)
    begun = time.perf_counter()
    tokens = sum(len(ids) for _, ids, _, _ in engine.generate(requests, 1.0))
    return {"batch": len(requests), "tokens": tokens, "tokens_per_s": tokens / (time.perf_counter() - begun)}


def check_gppo(args) -> dict:
    """The loop of rl_gppo.train() on toy sums, without its worker processes; SFT first, by sft.py."""
    folder = tempfile.mkdtemp()
    steps, model = (2, toy.make_model(f"{folder}/init")) if args.tiny else (20, "toy")
    cfg = rl_gppo.parse(["--model", model, "--output_dir", f"{folder}/run", "--rollout", "hf", "--steps", str(steps)])
    if args.tiny:
        cfg = dataclasses.replace(cfg, prompts_per_step=4, minibatch_prompts=2, max_response_tokens=16)
    run, engine, prompts, held_out, state, _ = rl_gppo.start(cfg)
    trained, seconds = [], []
    rl_gppo.evaluate(engine, held_out, state, InProcess(), run)
    for step in range(1, steps + 1):
        begun = time.perf_counter()
        samples, state["cursor"] = rl_gppo.rollout(engine, prompts, state["cursor"], step, InProcess(), run)
        kept, _ = rl_gppo.compute_advantages(samples, run.cfg)
        trained += [rl_gppo.update_policy(kept, step, run)] if kept else []
        engine.sync(run.bare)
        seconds.append(time.perf_counter() - begun)
    state["step"] = steps
    rl_gppo.evaluate(engine, held_out, state, InProcess(), run)
    evals = runs.read_jsonl(Path(cfg.output_dir) / "eval.jsonl")
    if not args.tiny and evals[-1]["accuracy"] <= evals[0]["accuracy"]:
        raise RuntimeError(f"accuracy did not rise in {steps} steps: {evals[0]['accuracy']:.3f} to "
                           f"{evals[-1]['accuracy']:.3f}")
    differences = [metrics["rollout_logprob_diff"] for metrics in trained]
    return {"steps": steps, "accuracy_before": evals[0]["accuracy"], "accuracy_after": evals[-1]["accuracy"],
            "stderr": evals[-1]["stderr"], "step_s": sorted(seconds)[steps // 2],
            "logprob_diff": max(differences) if differences and not args.tiny else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy-sized model and short samples")
    parser.add_argument("--lengths", type=int, nargs="*", help="tokens a sample of part 2 (4096 16384 32768)")
    parser.add_argument("--out", default="gpu_check.json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check.py: torch finds no GPU here (torch.cuda.is_available() is False); "
                 "to try the script: --device cpu --tiny")
    if args.device == "cpu" and not args.tiny:
        sys.exit("gpu_check.py: a 0.6B model at 32K tokens takes days on a CPU; add --tiny")
    lengths = args.lengths or ([64, 128] if args.tiny else [4096, 16384, 32768])
    parts = {"head": lambda: check_head(args), **{f"update_{n}": lambda n=n: check_update(args, n) for n in lengths},
             "generation": lambda: check_generation(args), "gppo": lambda: check_gppo(args)}
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    result = {"device": device, "torch": torch.__version__, "failed": []}
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        try:
            result[name] = part()
            print(f"  {json.dumps(result[name])}", flush=True)
        except Exception as error:  # memory, a missing kernel: the other parts still tell something
            traceback.print_exc()
            result["failed"].append(name)
            result[name] = {"error": " ".join(str(error).split())[:500]}
        Path(args.out).write_text(json.dumps(result, indent=1))  # after each part: nothing measured is lost
        gc.collect()  # a run and its accelerator refer to each other; its model is not of the next part's peak
        if args.device == "cuda":
            torch.cuda.empty_cache()
    print(f"\n{device} (prime-rl on one H100, 16K: 11,900 tokens/s, 12.5 GiB)\n\n"
          "| length | tokens/s | of peak FLOP/s | MFU | peak GiB |\n|---|---|---|---|---|")
    for row in (result[f"update_{n}"] for n in lengths):
        if "error" not in row:
            shares = " | ".join("-" if row[key] is None else f"{row[key]:.1%}" for key in ("flops_of_peak", "mfu"))
            peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
            print(f"| {row['length']:,} | {row['tokens_per_s']:,.0f} | {shares} | {peak} |")
    print(f"{args.out}" + (f"; failed: {', '.join(result['failed'])}" if result["failed"] else ""))
    sys.exit(bool(result["failed"]))


if __name__ == "__main__":
    main()
