#!/usr/bin/env bash
# Record the golden files of Co-DETR again, from a checkout of Sense-X/Co-DETR:
#   tools/record_co_detr_goldens.sh CODETR [VARIANT ...]
# Needed after a change of the seeded weights or inputs (parity/sides/prepare.py), of a small config, of the taps or of the
# sketches; `ddq-parity check` says so. About a minute each on 2 CPU cores.
set -euo pipefail
repo=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- tiny_co_dino
for variant in "$@"; do
    file=$here/legacy_adapters/families/co_detr/goldens/$variant.npz
    mkdir -p "$(dirname "$file")"
    ddq-parity capture "$file" --family co_detr --variant "$variant" --legacy-repo "$repo" \
        --size 48x70,61x57 --check forward,loss,grad --threads 1 --force --quiet
done
