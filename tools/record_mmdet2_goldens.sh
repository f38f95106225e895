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
    seed=0
    [ "$name" = cascade_rcnn ] && seed=1 # with seed 0 a proposal falls on the other side of a threshold in float64
    sizes=
    case $name in # the deepest ones
        detr) sizes="--size 61x77,83x71,49x93" ;;
        # no padding: encodings of it are the sine of some millions, which other kernels give otherwise (docs/detr.md)
        deformable*) sizes="--size 61x93,61x93,61x93" ;;
    esac
    ddq-parity capture "$here/tests/golden/mmdet2/$name.npz" --family mmdet2 --variant "tiny_$name" --legacy-repo "$repo" \
        --check forward,loss,grad --threads 1 --seed "$seed" --force --quiet $sizes
done
