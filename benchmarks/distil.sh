#!/bin/bash
# From a teacher to a trained student on two CPU cores, every step of docs/data.md with real parts: a served teacher writes
# 4 solutions a prompt, curate.py keeps the right ones, sft.py trains a student on them, eval.py measures it before and after.
#
#     bash benchmarks/distil.sh TRAIN.jsonl HELDOUT.jsonl OUT [TEACHER] [STUDENT]
#
# TRAIN and HELDOUT: rows of code problems ("prompt", "reward_model"), e.g. 100 tasks each of MBPP's training split. TEACHER and
# STUDENT: folders or hub names (`benchmarks/real_model.py` makes both without a hub). After an interruption the same command
# goes on. Result: docs/data.md.
set -euo pipefail
train=$1 heldout=$2 out=$3 teacher=${4:-runs/qwen_coder} student=${5:-runs/smollm2}
here=$(cd "$(dirname "$0")/.." && pwd) port=${PORT:-8771}
export VLLM_CPU_KVCACHE_SPACE=2 VLLM_LOGGING_LEVEL=WARNING
# vLLM would bind its worker to one core and keep the other for itself; threads that wait must not spin
export VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=$(nproc) OMP_WAIT_POLICY=passive KMP_BLOCKTIME=0
ask=(--ask_think false --n 4 --temperature 0.6 --max_tokens 300)
step() { echo; echo "== $1 ($(date +%T), $SECONDS s)"; }
mkdir -p "$out"

step teacher
if [ ! -f "$out/teacher/results.json" ]; then
    # vllm-cpu has no `vllm` command that starts: its module is the same server. On a CPU a prompt must not be cut over two
    # engine steps where requests have seeds: torch cannot turn a generator back there.
    python -m vllm.entrypoints.openai.api_server --model "$teacher" --served-model-name teacher --dtype float32 \
        --enforce-eager --max-model-len 2048 --max-num-seqs 64 --no-enable-chunked-prefill --max-num-batched-tokens 8192 \
        --host 127.0.0.1 --port "$port" > "$out/serve.log" 2>&1 &
    server=$!
    trap 'kill $server 2> /dev/null || true' EXIT
    until curl -sf "http://127.0.0.1:$port/health"; do
        kill -0 $server || { tail -5 "$out/serve.log"; exit 1; }
        sleep 2
    done
    step "teacher's samples"
    python "$here/eval.py" --engine api --api_base "http://127.0.0.1:$port/v1" --model teacher --data "$train" "${ask[@]}" \
        --output_dir "$out/teacher"
    kill $server
    wait $server || true
fi

step curate
python "$here/curate.py" --generations "$out/teacher/generations.jsonl" --problems "$train" --benchmarks "heldout=$heldout" \
    --ignore 'Your code should pass this test:|Write a Python solution.*' --keep right --pass_low 0.25 \
    --output_dir "$out/curated" \
    --filters duplicate_prompts decontaminate truncated duplicate_responses correctness per_prompt pass_rate

step "student before"
python "$here/eval.py" --model "$student" --data "$heldout" "${ask[@]}" --dtype float32 --output_dir "$out/before"

step sft
accelerate launch --cpu --num_processes 1 --mixed_precision no "$here/sft.py" --model "$student" --output_dir "$out/sft" \
    --train_file "$out/curated/sft.jsonl" --max_tokens 1024 --packing false --token_budget 4096 --epochs 3 --global_batch 16 \
    --lr 1e-4 --min_lr 1e-5 --warmup_ratio 0.05

step "student after"
python "$here/eval.py" --model "$out/sft/final" --data "$heldout" "${ask[@]}" --dtype float32 --output_dir "$out/after"
python "$here/eval.py" --compare "$out/before" "$out/after"
step end
