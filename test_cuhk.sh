#!/bin/sh
# Test GLCNet on CUHK-SYSU, plain, with CBGM and with ground-truth boxes: sh ./test_cuhk.sh DEVICES [CKPT.pth] [KEY VALUE ...]
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
launch_test configs/cuhk_sysu.yaml "$@"
