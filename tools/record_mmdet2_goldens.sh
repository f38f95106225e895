#!/usr/bin/env bash
# Record the golden files of MMDetection 2.x again, from a folder with its packages (see docs/parity.md):
#   tools/record_mmdet2_goldens.sh FOLDER [VARIANT ...]
# Needed after a change of the seeded weights or inputs (parity/sides/prepare.py), of a small config, of the taps or of the
# sketches; `ddq-parity check` says so. About a minute each on 2 CPU cores.
set -euo pipefail
repo=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- retinanet fcos atss yolox faster_rcnn mask_rcnn cascade_rcnn sparse_rcnn \
    detr deformable deformable_refine
mkdir -p "$here/tests/golden/mmdet2"
for name in "$@"; do
    sizes=
    [ "$name" = detr ] && sizes="--size 61x77,83x71,49x93" # the deepest one
    ddq-parity capture "$here/tests/golden/mmdet2/$name.npz" --family mmdet2 --variant "tiny_$name" --legacy-repo "$repo" \
        --check forward,loss,grad --threads 1 --force --quiet $sizes
done
