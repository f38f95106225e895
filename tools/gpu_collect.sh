#!/usr/bin/env bash
# Collect in .gpu/ what tools/gpu_check.py needs on a machine with torch but without a package index:
#   tools/gpu_collect.sh DDQ [DDQ_MAIN [MMDET2]]
# wheels (.gpu/wheels), and the Python files of the legacy code: .gpu/DDQ (branch ddq_detr), .gpu/DDQ_MAIN (branch main),
# .gpu/MMDET2 (mmdet 2.x and mmcv 1.x). PYTHON_VERSION is that of the GPU machine, 3.12 by default.
set -euo pipefail
ddq=$(cd "$1" && pwd)
main=${2:+$(cd "$2" && pwd)}
mmdet2=${3:+$(cd "$3" && pwd)}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

python_files() { # FROM TO FOLDER...
    local from=$1 to=$2
    shift 2
    mkdir -p "$to"
    (cd "$from" && find "$@" -name '*.py' -print0 | tar --create --null --files-from -) | tar --extract --directory "$to"
}

rm -rf .gpu
mkdir -p .gpu/wheels
"$python" -m pip download --quiet --no-deps --dest .gpu/wheels --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any \
    mmcv-lite==2.1.0 mmdet==3.3.0 mmengine==0.10.7 addict yapf platformdirs termcolor terminaltables pycocotools shapely
# what the fingerprint of each code base reads, and its configs
python_files "$ddq" .gpu/DDQ projects mmdet mmengine mmcv-2.0.0rc4/mmcv
[ -z "$main" ] || python_files "$main" .gpu/DDQ_MAIN projects mmdet mmcv-1.4.7/mmcv
[ -z "$mmdet2" ] || python_files "$mmdet2" .gpu/MMDET2 mmdet mmcv
du -sh .gpu
