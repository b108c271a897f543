#!/usr/bin/env bash
# The whole way from scans to a report with the spectrum filter: on two folders of DICOM where they
# are given, on virtual scans where not. An earlier demo is replaced, nothing else is.
# usage: demo.sh CVSCT OUT [SOURCE TARGET]
set -euo pipefail
cvsct=$1 out=$2 source=${3:-} target=${4:-}
if [[ -n $source && -z $target || -z $source && -n $target ]]; then
  echo "demo: give both folders, or none: make demo SOURCE=scans_of_A TARGET=scans_of_B" >&2
  exit 2
fi
for folder in ${source:+"$source"} ${target:+"$target"}; do
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
if [ -z "$source" ]; then
  exec "$cvsct" demo --out "$out/virtual"
fi
SECONDS=0
"$cvsct" train spectrum --source "$source" --target "$target" --out "$out/model"
"$cvsct" harmonize "$source" --model "$out/model" --out "$out/harmonized"
"$cvsct" evaluate --harmonized "$out/harmonized" --target "$target" --source "$source" --out "$out/report"
echo "demo: done in $SECONDS s; open $out/report/report.html"
