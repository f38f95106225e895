#!/usr/bin/env bash
# Collect in .gpu/ what tools/gpu_check.py needs on a machine with torch but without a package index:
#   tools/gpu_collect.sh DDQ [PYTHON_VERSION]
# wheels (.gpu/wheels), the official code without what it does not run (.gpu/DDQ), the tools (.gpu/tools).
set -euo pipefail
repo=$(cd "$1" && pwd)
version=${2:-3.12}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

rm -rf .gpu
mkdir -p .gpu/wheels .gpu/DDQ .gpu/tools
"$python" -m pip download --quiet --no-deps --dest .gpu/wheels --only-binary=:all: --python-version "$version" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any \
    mmcv-lite==2.1.0 mmdet==3.3.0 mmengine==0.10.7 addict yapf platformdirs termcolor terminaltables pycocotools shapely
# what the fingerprint of the official code reads, and its configs
for part in projects mmdet mmengine mmcv-2.0.0rc4/mmcv; do
    (cd "$repo" && find "$part" -name '*.py' -print0 | tar --create --null --files-from -) | tar --extract --directory .gpu/DDQ
done
cp tools/__init__.py tools/gpu_*.py .gpu/tools/
du -sh .gpu
