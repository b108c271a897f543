#!/usr/bin/env bash
# Trainings of CVS-CT and its ablations at equal steps, three seeds each, on three simulated pairs; and of CVS-CT with
# the texture network of our own in place of VGG16. A run that was stopped goes on with the same command.
#   bash notebook/scripts/cvsct_trainings.sh OUT STEPS [PAIR ...]     (default: kernel vendor reconstruction)
# Each pair has its tables in OUT/PAIR and OUT/PAIR-ct-texture. VGG16's weights are found as docs/training.md says.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
out=$1 steps=$2
shift 2
[[ $# -gt 0 ]] || set -- kernel vendor reconstruction

for pair; do
  scans=$out/scans-$pair
  [[ -e $scans/manifest.json ]] || cvsct simulate --scale demo --parts "pairs/$pair" --out "$scans"
  common=(--data "$scans/pairs/$pair" --seeds 3 --set "max_steps=$steps" --set schedule.validate_steps=40)
  cvsct benchmark "${common[@]}" --methods cyclegan,cvsct-1,cvsct-2,cvsct --out "$out/$pair"
  cvsct benchmark "${common[@]}" --methods cvsct --set domain.network=ct-texture --out "$out/$pair-ct-texture"
done
