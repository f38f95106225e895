#!/bin/sh
# Compare the curves of the new training with those of the official ones: legacy-0 is the reference, the others its band.
set -eu
. "$(dirname "$0")/settings.sh"
band=
for folder in "$OUT"/legacy-[1-9]*; do
    if [ -d "$folder" ]; then band="$band --band $folder"; fi
done
python -m parity curves "$OUT/legacy-0" "$OUT/new-$SEED" $band --out "$OUT/curves" --force
