#!/bin/sh
# Test GLCNet on PRW, plain, with CBGM and with ground-truth boxes: sh ./test_prw.sh DEVICES [CKPT.pth] [KEY VALUE ...]
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
launch_test configs/prw.yaml "$@"
