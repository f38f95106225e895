#!/bin/sh
# Test the converted checkpoint on all ranks.
set -eu
. "$(dirname "$0")/settings.sh"
mkdir -p "$OUT/test"
on_all_ranks ddq_port.training.eval_cli "$CONFIG" "$OUT/converted.pth" --work-dir "$OUT/test" \
    --out "$OUT/test/predictions.bbox.json" --force $EVAL_OPTIONS
