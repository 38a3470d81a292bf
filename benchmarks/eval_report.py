"""Scoring throughput, and report.html in a real browser, at the size of AIME with avg@64: 30 problems x 64 samples of
60,000 characters. Needs Chromium (Debian: apt-get install chromium); it is driven over its DevTools pipe, without a
driver.

    python benchmarks/eval_report.py [--rows AIME.jsonl] [--out runs/eval_report] [--chromium chromium]

Prints a table: scoring time, file size, time until the tables are painted, until the whole file is read, median and
worst time to open a sample (unpacked, laid out, next frame painted), to unfold its thinking, console errors, and
whether hostile responses ran script. Writes screenshot.png and sample.png. Exit code 1 if a limit is missed.
"""

import argparse
import base64
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = [
    "<script>window.hacked = 1</script>\\boxed{1}",
    "<img src=x onerror='window.hacked = 1'>\\boxed{<img src=x onerror=window.hacked=1>}",
    "</script><script>window.hacked = 1</script>",
    "$\\text{<svg onload=window.hacked=1>}$ \\(\\href{javascript:window.hacked=1}{x}\\)",
    "]]><!-- --!><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "${window.hacked = 1}`${window.hacked = 1}`",
    "$" + "{" * 5000 + "$ " + "\\frac" * 2000 + " \\boxed{" + "\\sqrt{" * 400 + "x" + "}" * 400 + "}",
]
PIECES = [
    "Let me check the case $n = {a}$: we have $\\frac{{{b}}}{{{c}}} + \\sqrt{{{a}}}$, so ",
    "wait, that is not right. ",
    "\n\nHmm, let me compute again: ",
    "the number of ways is $\\binom{{{a}}}{{{b}}} = {c}$. ",
    "By the law of cosines, \\[ x^2 = {a}^2 + {b}^2 - 2 \\cdot {a} \\cdot {b} \\cos\\theta \\] and ",
    "So the remainder is {a} modulo {b}. ",
    "Alternatively, maybe consider a different approach where we set $k = {b}$ and sum over all $i \\leq {c}$. ",
    "This gives \\(\\sum_{{i=1}}^{{{a}}} i^2 = {c}\\). ",
    "I should double check this by small values: f({a}) = {b}, f({b}) = {c}. ",
]


def spellings(answer: str) -> list[str]:
    return (
        [answer, f"{answer}.0", f"\\frac{{{2 * int(answer)}}}{{2}}", f"{int(answer) - 1} + 1"] if answer.isdigit() else [answer]
    )


def response(rng: random.Random, answer: str, right: bool, characters: int) -> str:
    parts, length = ["<think>\n"], 8
    while length < characters - 400:
        words = "".join(rng.choice("etaoinshrdlu     ") for _ in range(rng.randint(0, 40)))  # text packs to about a third
        parts.append(rng.choice(PIECES).format(a=rng.randint(2, 999), b=rng.randint(2, 999), c=rng.randint(2, 99999)) + words)
        length += len(parts[-1])
    if rng.random() < 0.06:
        return "".join(parts)  # cut: no answer
    final = (
        rng.choice(spellings(answer)) if right else rng.choice(["17", "204", "\\frac{17}{3}", "5\\sqrt{2}", "2^{10}", "204.5"])
    )
    return "".join(parts) + (
        f"\n</think>\n\n**Solution.** Counting both cases, $\\left(\\frac{{a}}{{b}}\\right)^2 \\le \\sum_{{k=1}}^{{n}} k$ and\n\n"
        f"\\[ \\begin{{cases}} x + y = {final} \\\\ x - y = 0 \\end{{cases}} \\]\n\nThe answer is $\\boxed{{{final}}}$."
    )


class Browser:
    """Chromium over --remote-debugging-pipe: JSON messages that end in a zero byte, on file descriptors 3 and 4."""

    def __init__(self, binary: str):
        self.folder = tempfile.mkdtemp()
        to_read, self.out = os.pipe()
        self.inp, from_write = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --hide-scrollbars --window-size=1500,1000 --remote-debugging-pipe "
            f"--user-data-dir={self.folder} about:blank"
        )
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {binary} {flags} 3<&{to_read} 4>&{from_write}"],
            pass_fds=(to_read, from_write),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(to_read), os.close(from_write)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.receive()
            if reply.get("id") == self.count:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                return reply["result"]
            self.events.append(reply)

    def receive(self) -> dict:
        while b"\0" not in self.buffer:
            data = os.read(self.inp, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended; is it installed and whole?")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def js(self, source: str):
        reply = self.call("Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{source[:80]}: {reply['exceptionDetails']['exception'].get('description')}")
        return reply["result"].get("value")

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def problems(self) -> list[str]:
        """Console errors, uncaught exceptions and requests beyond the file itself, so far."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(
                    params["exceptionDetails"]["text"]
                    + " "
                    + params["exceptionDetails"].get("exception", {}).get("description", "")
                )
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event.get("method") == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
                ("file:", "about:")
            ):
                found.append(f"request to {params['request']['url'][:80]}")
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self.out), os.close(self.inp)
        shutil.rmtree(self.folder, ignore_errors=True)


# Runs in the page before its own script: times the first frame with the tables, and opens samples as a reader does.
PROBE = """
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const pause = () => new Promise((done) => setTimeout(done, 150));
  new MutationObserver((_, observer) => {
    if (!document.querySelector('.problem')) return;
    observer.disconnect();
    painted().then(() => { window.tables = performance.now(); });
  }).observe(document, {childList: true, subtree: true});
  document.addEventListener('DOMContentLoaded', () => { window.whole = performance.now(); });
  async function openSample(p, s) {
    const began = performance.now(), title = meta.benchmarks[0].problems[p].id + ' · sample ' + s;
    document.querySelector('[data-key="0-' + p + '-' + s + '"]').click();
    while (!document.querySelector('#sample h2')?.textContent.endsWith(title)) await painted();
    await painted();
    return (performance.now() - began) / 1000;
  }
  async function unfold() {
    const began = performance.now();
    for (const node of document.querySelectorAll('#sample details')) node.open = true;
    await painted();
    await painted();
    return (performance.now() - began) / 1000;
  }
  function choose(filter) {
    const select = document.querySelector('select');
    select.value = filter;
    select.onchange();
    return document.querySelectorAll('.problem').length;
  }
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROOT / "tests/rows/aime24.jsonl", help="fewer than 30 rows are repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/eval_report"))
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--characters", type=int, default=60_000)
    args = parser.parse_args()
    if not shutil.which(args.chromium):
        sys.exit(f"eval_report.py: no {args.chromium} here; apt-get install chromium, or --chromium PATH")
    if not args.rows.is_file():
        sys.exit(f"eval_report.py: {args.rows} does not exist; give a benchmark file by --rows")
    args.out.mkdir(parents=True, exist_ok=True)
    rng, source = random.Random(0), args.out / "aime_avg64.jsonl"
    with open(source, "w") as file:
        rows = list(map(json.loads, args.rows.read_text().splitlines()))
        for at in range(max(len(rows), 30)):
            row, rate = rows[at % len(rows)], rng.random()
            meta = row.get("meta", {})
            answer = str(row.get("answer") or meta.get("answer") or meta["solution"])
            name = str(meta.get("unique_id", at) if len(rows) >= 30 else at)
            for _ in range(args.n):
                text = response(rng, answer, rng.random() < rate, args.characters)
                cut = "</think>" not in text
                file.write(
                    json.dumps(
                        {
                            "id": name,
                            "prompt": row["messages"],
                            "answer": answer,
                            "response": text,
                            "tokens": len(text) // 3,
                            "finish_reason": "length" if cut else "stop",
                        }
                    )
                    + "\n"
                )
        for text in HOSTILE:
            file.write(
                json.dumps(
                    {
                        "id": "hostile <script>window.hacked=1</script>",
                        "prompt": text,
                        "answer": "1",
                        "response": "<think>" + text + "</think>" + text,
                    }
                )
                + "\n"
            )
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "eval.py"), "--score_only", str(source), "--output_dir", str(args.out / "scored")]
    subprocess.run([*command, "--report", "false"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scoring = time.monotonic() - began
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    writing = time.monotonic() - began - scoring
    page = args.out / "scored/report.html"

    browser = Browser(args.chromium)
    try:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=PROBE)
        browser.call("Page.navigate", url=page.resolve().as_uri())
        while browser.js("window.whole === undefined || window.tables === undefined"):
            time.sleep(0.05)
        tables, whole = browser.js("window.tables") / 1000, browser.js("window.whole") / 1000
        opened, unfolded = [], []
        for at in range(40):
            opened.append(browser.js(f"openSample({at * 7 % 30}, {at * 11 % args.n})"))
            unfolded.append(browser.js("unfold()"))
        browser.js("openSample(3, 1)")
        browser.picture(args.out / "screenshot.png")
        choices = ("wrong", "truncated", "disagreeing", "verifier errors", "all")
        shown = {choice: browser.js(f"choose({choice!r})") for choice in choices}
        for s in range(len(HOSTILE)):
            browser.js(f"openSample(30, {s}).then(unfold).then(pause)")  # a moment for an injected handler to run
        browser.picture(args.out / "sample.png")
        hacked, errors = browser.js("window.hacked !== undefined"), browser.problems()
    finally:
        browser.close()
    rows = [
        ("scoring, s", scoring, 30),
        ("writing the report, s", writing, None),
        ("report.html, MB", page.stat().st_size / 1e6, None),
        ("tables painted, s", tables, 3),
        ("whole file read, s", whole, None),
        ("sample opened, median s", statistics.median(opened), 0.5),
        ("sample opened, worst s", max(opened), 0.5),
        ("thinking unfolded, median s", statistics.median(unfolded), None),
        ("thinking unfolded, worst s", max(unfolded), 0.5),
        ("console errors and requests", len(errors), 0),
        ("hostile script ran", int(hacked), 0),
    ]
    print("| figure | measured | limit |\n|---|---:|---:|")
    for name, value, limit in rows:
        print(f"| {name} | {value:.2f} | {'' if limit is None else limit} |")
    print(f"\nproblems shown by filter: {shown}", *errors[:5], sep="\n")
    return int(any(limit is not None and value > limit for _, value, limit in rows))


if __name__ == "__main__":
    sys.exit(main())
