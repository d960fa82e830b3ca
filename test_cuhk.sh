#!/bin/sh
# Test GLCNet on CUHK-SYSU, plain, with CBGM and with ground-truth boxes: sh ./test_cuhk.sh DEVICES [CKPT.pth] [KEY VALUE ...]
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
devices=${1:-}
[ $# -eq 0 ] || shift
launch_test configs/cuhk_sysu.yaml "$devices" "$@"
