"""Code rewards inside the RL stage: math and code rows in one file, scored while the engine still generates."""

import json
import time
from types import SimpleNamespace

import rewards
import rl_gppo

THINK = "<think>t</think>"
RIGHT = THINK + "```python\nprint(2 * int(input()))\n```"
HALF = THINK + "```python\nn = int(input())\nprint(2 * n if n < 2 else 0)\n```"
TESTS = json.dumps({"inputs": [f"{n}\n" for n in range(4)], "outputs": [f"{2 * n}\n" for n in range(4)]})
ROWS = [("toy:math", "4", [THINK + "\\boxed{4}", THINK + "\\boxed{5}"]), ("coder1_longcot", TESTS, [RIGHT, HALF])] * 3


def test_rewards_of_mixed_rows_come_while_others_are_generated():
    """The engine yields a response every 0.5 s; all but the last few rewards, programs run, are there before it has ended."""
    order, scored, wait = [], {}, 0.5

    class Engine:
        def generate(self, requests, temperature, top_p):
            for i in range(len(requests)):
                time.sleep(wait)
                yield i, [i], [0.0], False
            self.ended = time.monotonic()

    class Tokenizer:
        def decode(self, ids):
            return responses[ids[0]]

    engine = Engine()
    prompts = [rl_gppo.Prompt([0], "", source, truth) for source, truth, _ in ROWS]
    responses = [ROWS[g][2][s] for g in rl_gppo.spread(prompts, 1)[0] for s in range(2)]
    run = SimpleNamespace(cfg=SimpleNamespace(vllm_tensor_parallel=1), world=1, rank=0, stop_ids=[99], tokenizer=Tokenizer(), reward_s=0.0,
                          stop_if_asked=lambda: None)
    with rewards.RewardPool(1) as pool:
        pool.score_batch([dict(data_source="toy:math", response=THINK + "\\boxed{1}", ground_truth="2"),
                          dict(data_source="coder1", response=RIGHT, ground_truth=TESTS)])  # warm

        def submit(item):
            future = pool.submit(item)
            number = len(order)
            order.append(item["data_source"])
            future.add_done_callback(lambda _: scored.setdefault(number, time.monotonic()))
            return future

        start = time.monotonic()
        samples = rl_gppo.collect(engine, prompts, 2, (0, "train", 1), 1.0, 1.0, SimpleNamespace(submit=submit), run)
        total = time.monotonic() - start
    assert [(s.group, s.reward.score, s.reward.correct) for s in samples] == [
        (g, *((1.0, True), (-1.0, False) if g % 2 == 0 else (0.5, False))[s]) for g in range(6) for s in range(2)]
    assert sorted(set(order)) == ["coder1_longcot", "toy:math"] and len(scored) == 12
    assert sum(at < engine.ended for at in scored.values()) >= 9
    assert 0 <= run.reward_s < wait * 12 and total < wait * 12 + 5
