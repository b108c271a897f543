#!/usr/bin/env bash
# Train, harmonise and evaluate with the spectrum filter on two folders of DICOM.
# usage: demo.sh CVSCT SOURCE TARGET OUT
set -euo pipefail
cvsct=$1 source=$2 target=$3 out=$4
for folder in "$source" "$target"; do
  if [ ! -d "$folder" ]; then
    echo "demo: $folder is not here; name two folders of CT: make demo SOURCE=scans_of_A TARGET=scans_of_B" >&2
    exit 2
  fi
done
if [ -e "$out" ] && [ ! -f "$out/.cvsct-demo" ]; then
  echo "demo: $out exists and is not an earlier demo; name another: make demo DEMO=folder" >&2
  exit 2
fi
rm -rf "$out"
mkdir -p "$out"
touch "$out/.cvsct-demo"
SECONDS=0
"$cvsct" train spectrum --source "$source" --target "$target" --out "$out/model"
"$cvsct" harmonize "$source" --model "$out/model" --out "$out/harmonized"
"$cvsct" evaluate --harmonized "$out/harmonized" --target "$target" --source "$source" --out "$out/report"
echo "demo: done in $SECONDS s; open $out/report/report.html"
