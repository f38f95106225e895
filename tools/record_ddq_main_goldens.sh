#!/usr/bin/env bash
# Record the golden files of DDQ FCN and DDQ R-CNN again, from a checkout of jshilong/DDQ, branch main:
#   tools/record_ddq_main_goldens.sh DDQ [FAMILY ...]
# Needed after a change of the seeded weights or inputs (parity/sides/prepare.py), of a small config, of the taps or of the
# sketches; `ddq-parity check` says so. About a minute each on 2 CPU cores.
set -euo pipefail
repo=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- ddq_fcn ddq_rcnn
for family in "$@"; do
    file=$here/legacy_adapters/families/$family/goldens/tiny.npz # in the package, for the demo
    mkdir -p "$(dirname "$file")"
    ddq-parity capture "$file" --family "$family" --variant tiny --legacy-repo "$repo" \
        --size 61x93,83x77 --check forward,loss,grad --threads 1 --force --quiet
done
