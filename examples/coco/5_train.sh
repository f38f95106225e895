#!/bin/sh
# Train with this package. A job that is queued again goes on with its newest checkpoint.
set -eu
. "$(dirname "$0")/settings.sh"
on_all_ranks ddq_port.training run "$CONFIG" --work-dir "$OUT/new-$SEED" --resume --seed "$SEED" $TRAIN_OPTIONS
