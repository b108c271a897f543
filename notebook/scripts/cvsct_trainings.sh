#!/usr/bin/env bash
# Trainings of CVS-CT and its ablations at equal steps, three seeds each, on three simulated pairs; and of CVS-CT with
# the texture network of our own in place of VGG16. A run that was stopped goes on with the same command.
#   bash notebook/scripts/cvsct_trainings.sh OUT STEPS [PAIR ...]     (default: kernel vendor reconstruction)
# The rows of each pair are in OUT/PAIR/rows.jsonl, its table is printed. VGG16's weights are found as docs/reference/training.md
# says.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
out=$1 steps=$2
shift 2
[[ $# -gt 0 ]] || set -- kernel vendor reconstruction

for pair; do
  scans=$out/scans-$pair
  [[ -e $scans/manifest.json ]] || cvsct simulate --scale demo --parts "pairs/$pair" --out "$scans"
  study=(python notebook/scripts/cvsct_ablations.py --data "$scans/pairs/$pair" --out "$out/$pair" --steps "$steps")
  "${study[@]}"
  "${study[@]}" --methods cvsct --label cvsct-ct-texture --set domain.network=ct-texture
done
