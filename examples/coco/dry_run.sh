#!/bin/sh
# All stages in small, on the CPU: two ranks over gloo, a tiny config, a few images, two training steps.
# dry_run.sh FOLDER; needs LEGACY_REPO for stages 3 and 4. The official script does not run on today's torch and on the
# CPU, so stage 4 is `ddq-parity train-legacy` here, which runs the official Runner in one process.
set -eu
here=$(dirname "$0")
folder=$(realpath -m "${1:?dry_run.sh FOLDER}")
export RANKS=2 DEVICE=cpu VARIANT=tiny_shapes CONFIG="$folder/config.py" LIMIT=4 OUT="$folder/runs" OMP_NUM_THREADS=1
export ANN="$folder/data/annotations/val.json" IMAGES="$folder/data/val" RELEASED="$folder/runs/legacy-0/iter_2.pth"
export TRAIN_OPTIONS="--no-preflight --no-check-data" EVAL_OPTIONS="--no-check-data"
python - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from ddq_port.data import shapes
from ddq_port.training import demo

folder = Path(sys.argv[1])
if not (folder / "data").exists():
    shapes.write(folder / "data", (shapes.Split("train", 32, 0, shapes.CLASSES), shapes.Split("val", 4, 1, shapes.CLASSES)))
demo.config(folder / "data", steps=2).dump(folder / "config.py")
PYTHON
. "$here/settings.sh"
if [ -d "$LEGACY_REPO" ]; then
    python -m parity train-legacy --family "$FAMILY" --variant "$VARIANT" --legacy-repo "$LEGACY_REPO" \
        --data "$folder/data/annotations/train.json" "$folder/data/train" --val-data "$ANN" "$IMAGES" --threads 1 \
        --work-dir "$OUT/legacy-0" --resume --set train_cfg.max_iters=2 --set train_cfg.val_interval=2 \
        --set param_scheduler.0.end=1 --set param_scheduler.1.begin=1 --set param_scheduler.1.end=2
    sh "$here/1_convert.sh"
    sh "$here/2_test.sh"
    sh "$here/3_compare.sh"
fi
sh "$here/5_train.sh"
if [ -d "$LEGACY_REPO" ]; then
    sh "$here/6_curves.sh" || [ $? -eq 3 ] # two steps and no band: not comparable
fi
