#!/usr/bin/env bash
# One sitting on a machine with one GPU and no network: trains the next model of a list within a
# time limit, measures speed, and leaves what is worth carrying home in $OUT. Call it again to go on.
#   bash scripts/gpu_run.sh cvsct:paper cvsct:stable cyclegan:stable --weights vgg16.npz
# All options: bash scripts/gpu_run.sh --help, and docs/training.md, "On a GPU".
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root/src:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$root/scripts/gpu_run.py" "$@"
