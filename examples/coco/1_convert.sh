#!/bin/sh
# Convert the released checkpoint and verify the result against it.
set -eu
. "$(dirname "$0")/settings.sh"
python -m converters convert "$RELEASED" "$OUT/converted.pth" --family "$FAMILY" --variant "$VARIANT" --force
python -m converters verify "$OUT/converted.pth" --source "$RELEASED"
