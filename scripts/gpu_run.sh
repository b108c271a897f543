#!/usr/bin/env bash
# Trains or resumes one model on a machine with a CUDA GPU, also one without network and held for minutes only,
# measures inference, and copies what is worth keeping to OUT.
#   bash scripts/gpu_run.sh METHOD:PRESET[:SEED] SOURCE TARGET [options] [-- options of cvsct train]
# --minutes 9          time limit of this call, everything included
# --model-minutes M    training time of the model over all calls (default: what this call leaves for training). The
#                      schedule is stretched over it: the limit of steps goes, the learning rate decays until then.
# --work DIR           holds the training between calls (/tmp/cvsct-gpu); the same call again goes on from there
# --out DIR            gets model.tar.gz (the model folder without checkpoint and optimiser state; of an unfinished
#                      training weights.safetensors), train.jsonl.gz, validation.jsonl, loss.png, train.log,
#                      inference-fp32.json and -bf16.json. Default: the variable OUT, or else ./gpu-run
# --weights FILE       ImageNet VGG weights (docs/reference/training.md)
# --wheels DIR         wheels for this machine's Python of libraries that it lacks
# --device cpu         a try without a GPU
# Exit code 0: trained, or stopped by the time; 1: failed, or something is missing; 2: bad arguments.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3} minutes=9 model_minutes='' work=/tmp/cvsct-gpu out=${OUT:-gpu-run} wheels='' device=cuda
fail() { echo "gpu_run: $1" >&2; exit "${2:-1}"; }
usage='METHOD:PRESET[:SEED] SOURCE TARGET [options] [-- options of cvsct train]; see the top of scripts/gpu_run.sh'

[[ $# -ge 3 && $1 == *:* && $1 != -* ]] || fail "usage: $usage" 2
IFS=: read -r method preset seed <<<"$1"
source=$2 target=$3
shift 3
while [[ $# -gt 0 && $1 != -- ]]; do
  [[ $# -ge 2 ]] || fail "$1 needs a value; usage: $usage" 2
  case $1 in
    --minutes) minutes=$2 ;; --model-minutes) model_minutes=$2 ;; --work) work=$2 ;; --out) out=$2 ;;
    --weights) export CVSCT_VGG_WEIGHTS=$2 ;; --wheels) wheels=$2 ;; --device) device=$2 ;;
    *) fail "unknown option $1; usage: $usage" 2 ;;
  esac
  shift 2
done
[[ ${1:-} != -- ]] || shift
for folder in "$source" "$target" ${wheels:+"$wheels"}; do
  [[ -d $folder ]] || fail "$folder: no such folder" 2
done
seconds() { awk "BEGIN { print $1 }"; }
limit=$(seconds "$minutes * 60") || fail "--minutes $minutes is no number" 2
reserve=$(seconds "r = $limit / 5; r < 90 ? r : 90")  # for preparation before and measurement after the training
: "${model_minutes:=$(seconds "($limit - $reserve) / 60")}"
left() { seconds "r = $limit - $SECONDS - $1; r > 1 ? r : 1"; }

name=$method-$preset-${seed:=0} model=$work/$method-$preset-$seed
mkdir -p "$work" "$out"
export PYTHONPATH="$work/site:$root/src:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
[[ -z $wheels ]] || "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$work/site" "$wheels"/*.whl
[[ $device != cpu ]] || export CUDA_VISIBLE_DEVICES=
"$python" -c "import cvsct.cli, torch; assert '$device' == 'cpu' or torch.cuda.is_available(), 'torch sees no CUDA GPU'" \
  2>"$work/check" || fail "$(tail -n 1 "$work/check"); libraries go in with --wheels, a try without a GPU is --device cpu"

state=0 train=(train "$method" --preset "$preset" --seed "$seed" --source "$source" --target "$target" --out "$model"
  --max-minutes "$model_minutes" --max-steps 1000000000)
[[ ! -e $model/checkpoint.pt ]] || train+=(--resume)
if [[ -e $model/SHA256SUMS ]]; then
  echo "gpu_run: $name is finished already"
else
  echo "gpu_run: $name, $model_minutes minutes of training in all"
  timeout --kill-after=20 "$(left "$(seconds "$reserve / 2")")" "$python" -m cvsct.cli "${train[@]}" "$@" \
    >>"$work/$name.log" 2>&1 || state=$?
fi
cp "$work/$name.log" "$out/train.log"
[[ $state -eq 0 || $state -eq 124 || $state -eq 137 ]] || fail "training failed: $(tail -n 1 "$work/$name.log")"

[[ ! -e $model/train.jsonl ]] || gzip -c "$model/train.jsonl" >"$out/train.jsonl.gz"
[[ ! -e $model/validation.jsonl ]] || cp "$model/validation.jsonl" "$out"
[[ ! -s $model/train.jsonl ]] || "$python" "$root/notebook/scripts/loss_curves.py" "$model" --png "$out/loss.png" \
  >/dev/null 2>&1 || echo "gpu_run: no loss.png (is matplotlib installed?)"
if [[ ! -e $model/SHA256SUMS ]]; then
  early="the time was up before a step was saved; give more --minutes"
  [[ -e $model/checkpoint.pt ]] || fail "$early"
  "$python" - "$model/checkpoint.pt" "$out/weights.safetensors" "gpu_run: $early" <<'PYTHON'
import sys
import torch
from safetensors.torch import save_file
saved = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
if saved["steps"] == 0:
    sys.exit(sys.argv[3])
weights = saved["best"]["weights"] if saved["best"] else saved["step"]["averaged"]
save_file({name: value.float().contiguous() for name, value in weights.items()}, sys.argv[2])
print(f"gpu_run: stopped by the time after {saved['steps']} steps; the same call on this machine goes on")
PYTHON
  exit
fi
tar -czf "$out/model.tar.gz" -C "$work" --exclude={checkpoint.pt,best.pt,kept,cache,tensorboard,train.jsonl} "$(basename "$model")"
series=$(dirname "$(find -L "$source" -type f | sort | head -n 1)")
for precision in fp32 bf16; do
  rm -rf "$work/images"
  if timeout "$(left 5)" "$python" -m cvsct.cli harmonize "$series" --model "$model" --out "$work/images" --guard off \
    --precision "$precision" >"$work/harmonize.log" 2>&1; then
    cp "$work/images/manifest.json" "$out/inference-$precision.json"
    echo "gpu_run: inference $precision: $(grep -o '"slices_per_s": [0-9.]*' "$out/inference-$precision.json")"
  else
    echo "gpu_run: inference $precision not measured: $(tail -n 1 "$work/harmonize.log")"
  fi
done
