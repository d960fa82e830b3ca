#!/bin/sh
# From nothing to search results on a CPU: makes .venv, draws a small synthetic dataset, trains a small GLCNet, tests it
# and runs the demo. Everything goes to outputs/quickstart; a second call reuses what is there.
set -eu
cd "$(dirname "$0")"
out=outputs/quickstart

. ./tools/environment.sh
prepare_environment requirements.txt
warn_if_busy

download="import socket
socket.setdefaulttimeout(20)
from torchvision.models import MobileNet_V2_Weights
MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(progress=False)"
cfg=configs/quickstart.yaml # from random weights
if [ -f "$out/run/config.yaml" ]; then
    cfg=$out/run/config.yaml
elif "$python" -c "$download" 2>/dev/null; then
    cfg=configs/quickstart_imagenet.yaml
fi
if [ ! -f "$out/data/synthetic.json" ]; then # written last: without it the drawing was interrupted
    echo "== drawing a dataset in CUHK-SYSU's format"
    rm -rf "$out/data"
    "$python" -m tools.make_synthetic --out "$out/data" --width 288 --height 160 --person-height 0.4 0.85 --people 3 \
        --train-images 320 --gallery-images 120 --workers "$(number_of_cores)"
fi
if [ ! -f "$out/untrained/metrics.json" ]; then
    echo "== untrained baseline"
    "$python" -m tools.test --cfg "$cfg" --untrained --out "$out/untrained" OUTPUT_DIR "$out/run"
fi
if [ ! -f "$out/run/metrics.json" ]; then # written after the last epoch
    echo "== training, two to five minutes (continues an interrupted run)"
    "$python" -m tools.train --cfg "$cfg" --resume OUTPUT_DIR "$out/run"
fi
if [ ! -f "$out/test/metrics.json" ]; then
    echo "== testing: plain, with CBGM, and with ground-truth boxes"
    "$python" -m tools.test --cfg "$cfg" --cbgm --gt --out "$out/test" OUTPUT_DIR "$out/run"
fi
if [ ! -f "$out/demo/results.json" ]; then
    echo "== demo"
    "$python" demo.py --out "$out/demo"
fi

echo
"$python" -m tools.compare untrained="$out/untrained/metrics.json" trained="$out/test/metrics.json"
cat <<END

All in $out:
  demo/overview.jpg     the query person and the best matches
  demo/gallery/         the images with a match, with the people found
  demo/results.json     the same as numbers
  test/metrics.json     the table above; untrained/metrics.json next to it
  run/                  checkpoints, config, log; curves: .venv/bin/tensorboard --logdir $out/run/tensorboard
  data/                 the dataset, pictures in data/Image/SSM
END
