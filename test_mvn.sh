#!/bin/sh
# Test GLCNet on MovieNet-CS, plain, with CBGM and with ground-truth boxes: sh ./test_mvn.sh DEVICES [CKPT.pth] [KEY VALUE ...]
set -eu
cd "$(dirname "$0")"
. ./tools/launch.sh
launch_test configs/movienet_cs.yaml "$@"
