"""Log-probabilities of response tokens, forward and backward: the chunked head of rl_gppo.py against TRL 1.16.

    pip install trl==1.16.0
    python benchmarks/logprob_memory.py                  # 2 x 2,048 tokens, V = 151,936, D = 1,024 (Qwen3-0.6B), fp32
    python benchmarks/logprob_memory.py --dtype bf16
    python benchmarks/logprob_memory.py --only chunks       # memory and time over logit_chunk
    python benchmarks/logprob_memory.py --only long         # 32,768 tokens

Three ways from hidden states and head to log-probabilities, and the gradient of both:

    ours        HeadLogprobs: logits of `logit_chunk` tokens at a time, in fp32, made again in backward
    selective   full logits from the head, then trl.trainer.utils.selective_log_softmax, or with entropy
                selective_log_softmax_and_entropy (its TPO, SDPO, ORPO, CPO; GRPO too before 1.16)
    fused       add_fused_lm_head, the head that TRL 1.16 gives GRPO and RLOO: tiles of 4,096 tokens x 32,768 words in
                the precision of the input, made again in backward

fp32 is the run without mixed precision, bf16 has hidden states and head in bf16 (what FSDP2 hands to the head); in bf16
`ours` makes fp32 logits and the others bf16 ones. The last columns are the error against float64 logits of the same
input.

Each way lives in a process of its own and works when it is told to, in turn (A B C A B C ...), so that all meet the
same noise. Peak memory is the growth of VmHWM over the resident memory once the input exists; the gradients are part of
it. The first round warms up and is not counted. Prints medians; ends with exit code 1 if `ours` takes more than 0.2 of
the memory or more than 1.0 of the time of `selective` with the default sizes. """

import argparse
import ctypes
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
WAYS = ("ours", "selective", "fused")


def status_mb(key: str) -> float:
    """VmRSS or VmHWM of this process, MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1e3


def work(args) -> None:
    """The process of one way: a line of JSON on stdin asks for a run, a line on stdout answers."""
    sys.path.insert(0, str(ROOT))
    import torch
    from torch import nn

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    if args.way == "ours":
        from policy import HeadLogprobs
    else:
        from transformers import PretrainedConfig
        from trl.trainer.utils import add_fused_lm_head, selective_log_softmax, selective_log_softmax_and_entropy

    hidden = torch.randn(2, args.tokens // 2, args.hidden).to(dtype).requires_grad_()
    head = nn.Linear(args.hidden, args.vocab, bias=False).to(dtype)
    nn.init.normal_(head.weight, std=args.hidden**-0.5)  # logits of spread 1
    targets, upstream = torch.randint(args.vocab, hidden.shape[:2]), torch.randn(hidden.shape[:2])

    class Model(nn.Module):
        """What add_fused_lm_head wants to see: a backbone, which gives the hidden states, and a head."""

        base_model_prefix, config = "model", PretrainedConfig() if args.way == "fused" else None

        def forward(self):
            raise NotImplementedError

        def get_output_embeddings(self):
            return head

        def base_model(self, **_):
            from transformers.modeling_outputs import BaseModelOutput

            return BaseModelOutput(last_hidden_state=hidden)

    model = Model()
    if args.way == "fused":
        add_fused_lm_head(model, outputs=("log_probs", "entropy") if args.entropy else ("log_probs",))

    def logprobs(chunk: int):
        if args.way == "ours":
            flat = HeadLogprobs.apply(hidden.flatten(0, 1), head.weight, targets.flatten(), 1.0, chunk, args.entropy)
            return [x.view(targets.shape) for x in flat]
        if args.way == "fused":
            out = model.forward(shift_labels=targets, fused_lm_head=True)
            return out.log_probs, out.entropy
        if args.entropy:
            return selective_log_softmax_and_entropy(head(hidden), targets, entropy_requires_grad=False)
        return selective_log_softmax(head(hidden), targets), None

    print("READY", flush=True)
    for line in sys.stdin:
        chunk = json.loads(line)["chunk"]
        hidden.grad = head.weight.grad = None
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier run left in the allocator is no part of this one
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at the memory in use
        before, begun = status_mb("VmRSS"), time.perf_counter()
        logps, entropy = logprobs(chunk)
        (logps * upstream).sum().backward()
        seconds, peak = time.perf_counter() - begun, status_mb("VmHWM") - before
        with torch.no_grad():  # 64 tokens in float64
            full = (hidden[0, :64].double() @ head.weight.double().T).log_softmax(-1)
            error = (logps[0, :64] - full.gather(-1, targets[0, :64, None]).squeeze(-1)).abs().max().item()
            wrong = (entropy[0, :64] + (full.exp() * full).sum(-1)).abs().max().item() if args.entropy else None
        del logps, entropy, full
        print("RESULT " + json.dumps(dict(seconds=seconds, peak_mb=peak, error=error, entropy_error=wrong)), flush=True)


class Worker:
    def __init__(self, way: str, args, **changes):
        values = {**vars(args), **changes, "way": way}
        flags = [f"--{key}={values[key]}" for key in ("tokens", "hidden", "vocab", "dtype", "threads", "way")]
        flags += ["--entropy"] if values["entropy"] else []
        # freed blocks of more than a megabyte go back to the system at once, so that resident is what is in use
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
        self.process = subprocess.Popen([sys.executable, __file__, *flags], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)
        self.name, self.results = f"{way} {'with entropy' if values['entropy'] else ''}", []
        self.read("READY")

    def read(self, start: str) -> str:
        line = next((line for line in self.process.stdout if line.startswith(start)), None)
        if line is None:
            sys.exit(f"logprob_memory.py: {self.name} ended early; its message is above")
        return line[len(start):]

    def run(self, chunk: int) -> dict:
        self.process.stdin.write(json.dumps({"chunk": chunk}) + "\n")
        self.process.stdin.flush()
        self.results.append(json.loads(self.read("RESULT ")))
        return self.results[-1]

    def median(self, key: str) -> float:
        return statistics.median(result[key] for result in self.results)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(args, entropy: bool) -> tuple[float, float]:
    """(memory, time) of ours over selective; prints the table."""
    workers = [Worker(way, args, entropy=entropy) for way in WAYS]
    for turn in range(args.rounds + 1):
        for worker in workers:
            result = worker.run(args.chunk)
            if not turn:
                worker.results.clear()
            else:
                print(f"round {turn} {worker.name}: {result['seconds']:.2f} s", file=sys.stderr, flush=True)
    for worker in workers:
        worker.stop()
    ours, base = workers[0], workers[1]
    print(f"\n{args.tokens:,} tokens, V = {args.vocab:,}, D = {args.hidden:,}, {args.dtype}, log-probabilities"
          f"{' and entropy' if entropy else ''}, forward and backward, {args.threads} threads, "
          f"logit_chunk {args.chunk}, "
          f"median of {args.rounds} rounds\n")
    print("| | peak MB | of selective | s | of selective | max error | entropy |\n|---|---:|---:|---:|---:|---:|---:|")
    for w in workers:
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(w.results, base.results))
        wrong = f"{w.median('entropy_error'):.1e}" if entropy else ""
        peak = w.median("peak_mb")
        print(f"| {w.name.split()[0]} | {peak:,.0f} | {peak / base.median('peak_mb'):.3f} | "
              f"{w.median('seconds'):.2f} | {ratio:.2f} | {w.median('error'):.1e} | {wrong} |")
    ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(ours.results, base.results))
    return ours.median("peak_mb") / base.median("peak_mb"), ratio


def chunks(args) -> None:
    """Peak memory is a constant (the gradients) plus a share that grows with logit_chunk."""
    worker, sizes, rows = Worker("ours", args, entropy=True), [c for c in args.chunks if c <= args.tokens], []
    worker.run(sizes[0])
    for chunk in sizes:
        rows.append(worker.run(chunk))
    worker.stop()
    slope = (rows[-1]["peak_mb"] - rows[0]["peak_mb"]) / max(sizes[-1] - sizes[0], 1)
    constant = rows[0]["peak_mb"] - slope * sizes[0]
    print(f"\nlogit_chunk, {args.tokens:,} tokens, {args.dtype}, with entropy; a straight line through the first and "
          "last row:\n")
    print("| logit_chunk | peak MB | line | s |\n|---:|---:|---:|---:|")
    for chunk, row in zip(sizes, rows):
        print(f"| {chunk} | {row['peak_mb']:,.0f} | {constant + slope * chunk:,.0f} | {row['seconds']:.2f} |")
    gradients = (args.vocab + args.tokens) * args.hidden * 4 / 1e6
    print(f"\nthe line: {slope * 1e6 / args.vocab / 4:.2f} fp32 copies of (logit_chunk, V) beside {constant:,.0f} MB; "
          f"the gradients of head and hidden states alone are {gradients:,.0f} MB in fp32", flush=True)


def long(args) -> None:
    worker = Worker("ours", args, entropy=True, tokens=args.long_tokens)
    row = worker.run(args.chunk)
    worker.stop()
    full = args.long_tokens * args.vocab * 4 / 1e9
    print(f"\n{args.long_tokens:,} tokens, {args.dtype}, with entropy, logit_chunk {args.chunk}: "
          f"{row['peak_mb'] / 1e3:.2f} GB above head and hidden states, {row['seconds']:.0f} s; full fp32 logits alone "
          f"would be {full:.1f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--chunk", type=int, default=1024, help="logit_chunk")
    parser.add_argument("--chunks", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--long_tokens", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["plain", "entropy", "chunks", "long"])
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # the processes of the three ways
    parser.add_argument("--entropy", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        return work(args)
    if args.only in (None, "plain", "entropy") and importlib.util.find_spec("trl") is None:
        sys.exit("logprob_memory.py: trl is not installed; pip install trl==1.16.0, or ask for --only chunks or --only "
                 "long")
    ratios = [compare(args, part == "entropy") for part in ("plain", "entropy") if args.only in (None, part)]
    if args.only in (None, "chunks"):
        chunks(args)
    if args.only in (None, "long"):
        long(args)
    if (args.tokens, args.vocab) == (4096, 151936) and any(memory > 0.2 or seconds > 1 for memory, seconds in ratios):
        sys.exit("logprob_memory.py: ours takes more than 0.2 of the memory or 1.0 of the time of selective")


if __name__ == "__main__":
    main()
