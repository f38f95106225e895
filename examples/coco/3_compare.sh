#!/bin/sh
# Detect with the official code and with this package, and compare the detections one to one. On a GPU bits may differ,
# so there the bounds of --tolerance fixed hold.
set -eu
. "$(dirname "$0")/settings.sh"
tolerance=fixed
if [ "$DEVICE" = cpu ]; then tolerance=exact; fi
python -m parity eval --family "$FAMILY" --variant "$VARIANT" --legacy-repo "$LEGACY_REPO" --ann "$ANN" \
    --images "$IMAGES" --limit "$LIMIT" --checkpoint "$RELEASED" --device "$DEVICE" --tolerance "$tolerance" \
    --out "$OUT/compared" --force
