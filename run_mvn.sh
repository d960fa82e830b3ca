#!/bin/sh
# Train GLCNet on MovieNet-CS: sh ./run_mvn.sh DEVICES [KEY VALUE ...], DEVICES being cpu, 0, or 0,1,2,3.
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
launch train configs/movienet_cs.yaml "$@"
