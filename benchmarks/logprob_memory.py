"""Log-probabilities and entropies of 2 x 2,048 tokens over a vocabulary of 151,936, forward and backward: HeadLogprobs of rl_gppo.py
against TRL 1.16 (full logits, selective_log_softmax and entropy_from_logits, as its GRPOTrainer does), and against its own chunk.

    python benchmarks/logprob_memory.py                    # pip install trl==1.16.0 (--no-deps is enough)
    python benchmarks/logprob_memory.py --long 32768       # one more line: 32K tokens through the head
    python benchmarks/logprob_memory.py --dtype bfloat16   # hidden states and head in bf16

Every measurement is a process of its own, the sides in turn in every round. Peak memory is the growth of the resident set above what
stands before the call (hidden states and the head's weight), gradients included: each side makes the same, of (N, D) and (V, D).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def side(args) -> None:
    """One forward and backward in this process; prints its figures as JSON."""
    sys.path.insert(0, str(ROOT))
    import torch

    if args.side == "trl":
        from trl.trainer.utils import entropy_from_logits, selective_log_softmax
    else:
        from rl_gppo import HeadLogprobs
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    hidden = torch.randn(2, args.tokens // 2, args.width).to(dtype).requires_grad_()
    weight = torch.empty(args.vocab, args.width, dtype=dtype).normal_(std=0.02).requires_grad_()
    targets, grad = torch.randint(args.vocab, (2, args.tokens // 2)), torch.randn(2, args.tokens // 2)
    torch.mm(hidden[0, :8].detach(), weight[:64].detach().t())  # the threads and their buffers exist before the measurement
    before, begun = resident_bytes(), time.perf_counter()
    if args.side == "trl":
        logits = hidden @ weight.t()
        logprobs = selective_log_softmax(logits, targets)
        with torch.no_grad():
            entropy = entropy_from_logits(logits)
        logprobs.backward(grad.to(logprobs.dtype))
    else:
        logprobs, entropy = HeadLogprobs.apply(hidden.flatten(0, 1), weight, targets.flatten(), 1.0, args.chunk, True)
        logprobs.backward(grad.flatten())
    print(json.dumps({"seconds": time.perf_counter() - begun, "bytes": peak_bytes() - before, "before": before,
                      "logprob": logprobs.float().mean().item(), "entropy": entropy.float().mean().item(),
                      "grad": weight.grad.float().norm().item()}))


def measure(name: str, chunk: int, tokens: int, args) -> dict:
    command = [sys.executable, __file__, "--side", name, "--chunk", str(chunk), "--tokens", str(tokens), "--vocab", str(args.vocab),
               "--width", str(args.width), "--dtype", args.dtype, "--threads", str(args.threads)]
    # freed blocks of any size go back to the system at once, so that the resident set is what is in use
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"})
    if done.returncode:
        sys.exit(f"logprob_memory.py: the {name} side failed: {(done.stderr.strip().splitlines() or ['killed: not enough memory?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1024, help="hidden size; 1,024 is that of Qwen3-0.6B")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk", type=int, default=256, help="logit_chunk of our side")
    parser.add_argument("--chunks", type=int, nargs="*", default=[128, 256, 512, 1024, 2048], help="the table of memory by chunk")
    parser.add_argument("--long", type=int, default=0, help="tokens of one more line")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=["ours", "trl"], help="used by the parent process")
    args = parser.parse_args()
    if args.side:
        return side(args)
    rounds = []
    for turn in range(args.rounds):
        rounds.append({name: measure(name, args.chunk, args.tokens, args) for name in ("ours", "trl")})
        ours, trl = rounds[-1]["ours"], rounds[-1]["trl"]
        print(f"round {turn + 1}: ours {ours['seconds']:.1f} s, {ours['bytes'] / 1e9:.2f} GB; TRL {trl['seconds']:.1f} s, {trl['bytes'] / 1e9:.2f} GB; "
              f"gradient norms {ours['grad']:.5g} and {trl['grad']:.5g}", flush=True)
    seconds, memory = (statistics.median(r["ours"][key] / r["trl"][key] for r in rounds) for key in ("seconds", "bytes"))
    print(f"{args.tokens} tokens, vocabulary {args.vocab:,}, width {args.width:,}, {args.dtype}: ours / TRL, median of {args.rounds}: "
          f"memory {memory:.2f}, time {seconds:.2f}", flush=True)
    if args.chunks:
        print("| logit_chunk | peak above the inputs, GB | seconds |\n|---|---|---|")
    for chunk in args.chunks:
        row = measure("ours", chunk, args.tokens, args)
        print(f"| {chunk} | {row['bytes'] / 1e9:.2f} | {row['seconds']:.1f} |", flush=True)
    if args.long:
        row = measure("ours", args.chunk, args.long, args)
        print(f"{args.long:,} tokens: {row['bytes'] / 1e9:.2f} GB above the model, {row['seconds']:.0f} s")


if __name__ == "__main__":
    main()
