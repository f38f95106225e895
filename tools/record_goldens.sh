#!/usr/bin/env bash
# Record the golden files again, from a checkout of jshilong/DDQ, branch ddq_detr:
#   tools/record_goldens.sh DDQ [CASE ...]
# Needed after a change of the seeded weights or inputs (parity/prepare.py), of a tiny config, of the taps or of the
# sketches; `ddq-parity check` says so. About a minute each on 2 CPU cores.
set -euo pipefail
repo=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)

record() { # CASE VARIANT [OPTION ...]
    local case=$1 variant=$2 file
    shift 2
    file=$here/tests/golden/ddq_detr/$case.npz
    case $case in # those in the package are of one variant each
        two_sizes | five_scales | swin) file=$here/parity/goldens/ddq_detr.$variant.npz ;;
    esac
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $case "* ]]; then return; fi
    ddq-parity capture "$file" --family ddq_detr --variant "$variant" --legacy-repo "$repo" --force --quiet "$@"
}

wanted=("$@")
mkdir -p "$here/tests/golden/ddq_detr" "$here/parity/goldens"
record two_sizes tiny_4scale --size 128x160,96x128
record one_image tiny_4scale --size 160x128
record fewer_tokens_than_queries tiny_4scale --size 32x32,48x32
record image_without_objects tiny_4scale --size 96x128,128x96 --objects 0,3
record batch_without_objects tiny_4scale --size 96x128,128x96 --objects 0,0
record one_object tiny_4scale --size 96x128 --objects 1
record many_objects tiny_4scale --size 128x128 --objects 40
record wide tiny_4scale --size 48x640 --objects 2
record tall tiny_4scale --size 640x48 --objects 2
record below_10000_tokens tiny_4scale --size 616x768
record above_10000_tokens tiny_4scale --size 640x800
record one_class tiny_1class --size 128x160,96x128
record five_scales tiny_5scale --size 128x160,96x128
record swin tiny_swinl --size 128x160,96x128
