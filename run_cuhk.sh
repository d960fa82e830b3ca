#!/bin/sh
# Train GLCNet on CUHK-SYSU: sh ./run_cuhk.sh DEVICES [KEY VALUE ...], DEVICES being cpu, 0, or 0,1,2,3.
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
launch train configs/cuhk_sysu.yaml "$@"
