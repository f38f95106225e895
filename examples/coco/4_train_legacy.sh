#!/bin/sh
# Train with the official code, in its own environment and by its own script. SEED=0, 1, 2 give the band of noise.
set -eu
. "$(dirname "$0")/settings.sh"
work_dir=$(realpath -m "$OUT/legacy-$SEED")
cd "$LEGACY_REPO"
PYTHONPATH="$PWD:$PWD/mmcv-2.0.0rc4${PYTHONPATH:+:$PYTHONPATH}" "$LEGACY_PYTHON" -m torch.distributed.run \
    --nproc_per_node "$RANKS" --master_port "${PORT:-29500}" tools/train.py "$LEGACY_CONFIG" --launcher pytorch \
    --work-dir "$work_dir" --resume --cfg-options randomness.seed="$SEED"
