#!/usr/bin/env bash
# Record the golden files again, from a checkout of jshilong/DDQ, branch ddq_detr:
#   tools/record_goldens.sh DDQ [CASE ...]
# Needed after a change of the seeded weights or inputs (parity/sides/prepare.py), of a tiny config, of the taps or of the
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
        three_sizes | five_scales | swin) file=$here/legacy_adapters/families/ddq_detr/goldens/$variant.npz ;;
        inference) file=$here/tests/golden/inference.npz ;; # for the faults that inference shows
    esac
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $case "* ]]; then return; fi
    ddq-parity capture "$file" --family ddq_detr --variant "$variant" --legacy-repo "$repo" --force --quiet "$@"
}

wanted=("$@")
mkdir -p "$here/tests/golden/ddq_detr" "$here/legacy_adapters/families/ddq_detr/goldens"
# in the package, for the demo and the preflight
record three_sizes tiny_4scale
record five_scales tiny_5scale
record swin tiny_swinl
record inference tiny_4scale --check forward --threads 1
# for the tests, of a batch each; how the model is initialised stands in the first one
edge() { record "$@" --check forward,loss,grad --threads 1; }
edge one_class tiny_1class
edge one_image tiny_4scale --size 160x128
edge fewer_tokens_than_queries tiny_4scale --size 32x32,48x32
edge image_without_objects tiny_4scale --size 96x128,128x96 --objects 0,3
edge batch_without_objects tiny_4scale --size 96x128,128x96 --objects 0,0
edge one_object tiny_4scale --size 96x128 --objects 1
edge many_objects tiny_4scale --size 128x128 --objects 40
edge wide tiny_4scale --size 48x640 --objects 2
edge tall tiny_4scale --size 640x48 --objects 2 --seed 1 # with seed 0 a gradient jumps by more than a bound may be
edge below_10000_tokens tiny_4scale --size 616x768
# no gradients: with so many tokens the official code's own jump by more than a bound may be; a bound of such a size shows
# nothing. What is another above 10,000 tokens is how boxes are selected, which has no gradient.
record above_10000_tokens tiny_4scale --size 640x800 --seed 1 --check forward,loss --threads 1
