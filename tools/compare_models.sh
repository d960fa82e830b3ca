#!/usr/bin/env bash
# Trains and tests OIM, NAE, SeqNet, GLCNet (scene, group, both) and AlignPS on one synthetic dataset with the same seed
# and budget, small and from random weights, and prints their scores, plain and with CBGM, in one table. On two cores it
# took half an hour with 4 epochs, AlignPS aside.
# In the dataset half of the people have a double who belongs to another group, so that the context tells them apart.
#   bash tools/compare_models.sh [FOLDER] [KEY VALUE ...]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-outputs/comparison}
[ $# -eq 0 ] || shift
python=.venv/bin/python

if [ ! -f "$out/data/synthetic.json" ]; then
    rm -rf "$out/data"
    "$python" -m tools.make_synthetic --out "$out/data" --width 288 --height 160 --person-height 0.4 0.85 --people 3 \
        --train-images 320 --gallery-images 120 --lookalikes 0.5
fi

single_head="MODEL.DETECTION_HEAD.TYPE none MODEL.SEARCH_HEAD.NMS_THRESH 0.4 MODEL.LOSS_WEIGHTS.BOX_REG 2.0"
no_context="MODEL.CONTEXT.SCENE none MODEL.CONTEXT.GROUP none"
narrow="MODEL.EMBEDDING.RES4 128"

options() { # of a model, over the config
    case $1 in
        oim) echo "$single_head $no_context MODEL.SEARCH_HEAD.TYPE linear MODEL.SEARCH_HEAD.BOX_BATCH_NORM False" \
            "MODEL.SEARCH_HEAD.WEIGHT_BY_SCORE False MODEL.EMBEDDING.RES5 256" ;;
        nae) echo "$single_head $no_context $narrow MODEL.SEARCH_HEAD.BACKGROUND_IOU 0.1" ;;
        seqnet) echo "$no_context $narrow" ;;
        glcnet_scene) echo "MODEL.CONTEXT.GROUP none" ;;
        glcnet_group) echo "MODEL.CONTEXT.SCENE none" ;;
        glcnet | alignps) echo "" ;;
    esac
}

models="oim nae seqnet glcnet_scene glcnet_group glcnet alignps"
results=()
for model in $models; do
    echo "== $model"
    cfg=configs/quickstart.yaml
    [ "$model" != alignps ] || cfg=configs/quickstart_alignps.yaml
    # shellcheck disable=SC2046 # the options are words
    set_of=($(options "$model") INPUT.DATA_ROOT "$out/data" OUTPUT_DIR "$out/$model" "$@")
    "$python" -m tools.train --cfg "$cfg" --resume "${set_of[@]}"
    "$python" -m tools.test --cfg "$cfg" --cbgm "${set_of[@]}"
    results+=("$model=$out/$model/test/metrics.json")
done

"$python" -m tools.compare "${results[@]}"
echo "fastest epoch:"
for model in $models; do
    echo "$model: $(grep -o '[0-9.]* s a batch' "$out/$model/log.txt" | sort -n | head -n 1)"
done
