"""Code rewards inside the RL stage: math and code rows in one file, scored while the engine still generates."""

import json
import threading
from types import SimpleNamespace

import rewards
import rl_gppo

THINK = "<think>t</think>"
RIGHT = THINK + "```python\nprint(2 * int(input()))\n```"
HALF = THINK + "```python\nn = int(input())\nprint(2 * n if n < 2 else 0)\n```"
TESTS = json.dumps({"inputs": [f"{n}\n" for n in range(4)], "outputs": [f"{2 * n}\n" for n in range(4)]})
ROWS = [("toy:math", "4", [THINK + "\\boxed{4}", THINK + "\\boxed{5}"]), ("coder1_longcot", TESTS, [RIGHT, HALF])] * 3


def test_rewards_of_mixed_rows_come_while_others_are_generated():
    """The engine yields a response only when all but the last three rewards, programs run, are there: they must come
    while it generates."""
    order, scored = [], threading.Semaphore(3)

    class Engine:
        def generate(self, requests, temperature, top_p):
            for i in range(len(requests)):
                assert scored.acquire(timeout=120), f"no reward came after response {i}"
                yield i, [i], [0.0], False

    class Tokenizer:
        def decode(self, ids):
            return responses[ids[0]]

    prompts = [rl_gppo.Prompt([0], "", source, truth) for source, truth, _ in ROWS]
    responses = [ROWS[g][2][s] for g in rl_gppo.spread(prompts, 1)[0] for s in range(2)]
    run = SimpleNamespace(cfg=SimpleNamespace(vllm_tensor_parallel=1), world=1, rank=0, stop_ids=[99], tokenizer=Tokenizer(), reward_s=0.0,
                          wait=lambda futures: None)
    with rewards.RewardPool(1) as pool:
        pool.score_batch([dict(data_source="toy:math", response=THINK + "\\boxed{1}", ground_truth="2"),
                          dict(data_source="coder1", response=RIGHT, ground_truth=TESTS)])  # warm

        def submit(item):
            future = pool.submit(item)
            order.append(item["data_source"])
            future.add_done_callback(lambda _: scored.release())
            return future

        samples = rl_gppo.collect(Engine(), prompts, 2, (0, "train", 1), 1.0, 1.0, SimpleNamespace(submit=submit), run)
    assert [(s.group, s.reward.score, s.reward.correct) for s in samples] == [
        (g, *((1.0, True), (-1.0, False) if g % 2 == 0 else (0.5, False))[s]) for g in range(6) for s in range(2)]
    assert sorted(set(order)) == ["coder1_longcot", "toy:math"] and len(order) == 12 and run.reward_s >= 0
