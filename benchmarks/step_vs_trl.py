"""One RL step (rollout, reward, updates) of rl_gppo.py against TRL's GRPOTrainer: same model, prompts, batch, fp32.

    python benchmarks/step_vs_trl.py --model runs/toy_math_sft/sft/final --rollout hf --rounds 9  # trl==1.16.0
    python benchmarks/step_vs_trl.py --model runs/smollm2_sft/final --train_file runs/svamp_train.jsonl \\
        --prompts 4 --minibatch 2 --max_prompt_tokens 160 --max_response_tokens 64 --rounds 5

Each side lives in a process of its own and does a step when it is told to, in turn (A B A B ...), so that both meet the
same noise; the other one waits. The learning rate is too small to move the weights: both sides draw responses of the
same policy, so their lengths agree in distribution (the mean is printed). Ours does what a step of a run does, weight
sync included. TRL generates with transformers, which is its own way on a CPU. Prints medians and the ratio round by
round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
LR = 1e-12


def wait() -> None:
    if not sys.stdin.readline():
        sys.exit()


def report(**result) -> None:
    print("RESULT " + json.dumps(result), flush=True)


def ours(args) -> None:
    sys.path.insert(0, str(ROOT))
    import tempfile

    import torch

    import rewards
    import rl_gppo

    torch.set_num_threads(os.cpu_count())
    cfg = rl_gppo.Config(
        model=args.model, train_file=args.train_file, eval_file="", output_dir=tempfile.mkdtemp(), lr=LR,
        weight_decay=0.0, sft_coef=0.0, prompts_per_step=args.prompts, minibatch_prompts=args.minibatch,
        responses_per_prompt=args.responses,
        rollout=args.rollout, max_prompt_tokens=args.max_prompt_tokens, max_response_tokens=args.max_response_tokens,
        zero_advantage_filter=False)
    run, engine, prompts, _, state, _ = rl_gppo.start(cfg)
    with rewards.RewardPool(os.cpu_count()) as pool:
        for step in range(1, 10**6):
            wait()
            begun = time.perf_counter()
            samples, state["cursor"] = rl_gppo.rollout(engine, prompts, state["cursor"], step, pool, run)
            engine.sleep()
            kept, _ = rl_gppo.compute_advantages(samples, run.cfg)
            updates = rl_gppo.update_policy(kept, step, run)["updates"]
            engine.sync(run.bare)
            report(seconds=time.perf_counter() - begun, tokens=sum(len(s.response) for s in samples), updates=updates)


def trl(args) -> None:
    sys.path.insert(0, str(ROOT))
    import tempfile

    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    import rewards
    import rl_gppo

    torch.set_num_threads(os.cpu_count())
    cfg = rl_gppo.Config(model=args.model, train_file=args.train_file, max_prompt_tokens=args.max_prompt_tokens)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompts = rl_gppo.load_prompts(args.train_file, "train_file", tokenizer, cfg)
    rl_gppo.fit_lengths(prompts, [], 2**31, cfg)  # leaves out the same ones
    updates, lengths = args.prompts // args.minibatch, []

    def reward(prompts, completions, ground_truth, data_source, completion_ids, **_):
        lengths.append(sum(map(len, completion_ids)))
        return [rewards.score(s, c, g).score for s, c, g in zip(data_source, completions, ground_truth)]

    class InTurn(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, args, state, control, **_):
            if state.global_step % updates == 0:
                if state.global_step:
                    report(seconds=time.perf_counter() - self.begun, tokens=lengths[-1], updates=updates)
                wait()
                self.begun = time.perf_counter()

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, learning_rate=LR, weight_decay=0.0, beta=0.0,
        epsilon=0.2, epsilon_high=0.28, loss_type="dapo",
        per_device_train_batch_size=args.minibatch * args.responses, gradient_accumulation_steps=1,
        steps_per_generation=updates, num_generations=args.responses, temperature=1.0,
        max_completion_length=args.max_response_tokens,
        num_iterations=1, max_steps=10**6, save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=10**6,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": torch.float32})
    rows = Dataset.from_list([{"prompt": p.text, "ground_truth": p.ground_truth, "data_source": p.data_source}
                              for p in prompts])
    # the step that fetches a batch has generated and trained on it: rollout and updates fall into one turn
    GRPOTrainer(model=args.model, reward_funcs=reward, args=config, train_dataset=rows, processing_class=tokenizer,
                callbacks=[InTurn()]).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", default="toy:math")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--minibatch", type=int, default=8)
    parser.add_argument("--max_prompt_tokens", type=int, default=64)
    parser.add_argument("--max_response_tokens", type=int, default=64)
    parser.add_argument("--rollout", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=["ours", "trl"], help="used by the parent process")
    args = parser.parse_args()
    if args.side:
        return ours(args) if args.side == "ours" else trl(args)
    sides = {}
    for side in ("ours", "trl"):
        sides[side] = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--side", side], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       env={**os.environ, "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"})
    results = {side: [] for side in sides}
    for turn in range(args.rounds + 1):  # the first one warms up
        for side, process in sides.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            line = next((line for line in process.stdout if line.startswith("RESULT ")), None)
            if line is None:
                sys.exit(f"step_vs_trl.py: the {side} side ended early; its message is above")
            result = json.loads(line[7:])
            if turn:
                results[side].append(result)
                print(f"round {turn} {side:>5}: {result['seconds']:.2f} s, {result['tokens']} tokens, "
                      f"{result['updates']} updates", flush=True)
    for process in sides.values():
        process.kill()
    medians = {side: statistics.median(r["seconds"] for r in rows) for side, rows in results.items()}
    ratios = sorted(a["seconds"] / b["seconds"] for a, b in zip(results["ours"], results["trl"]))
    tokens = {side: statistics.mean(r["tokens"] for r in rows) for side, rows in results.items()}
    print(f"median step: ours {medians['ours']:.2f} s ({tokens['ours']:.0f} tokens), "
          f"TRL {medians['trl']:.2f} s ({tokens['trl']:.0f} tokens); "
          f"ratio ours/TRL: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
