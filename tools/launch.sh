# Runs a program of tools/ on the devices named first: `cpu`, one CUDA device (`0`) or several (`0,1,2,3`, through torchrun).
# Sourced by the run_*.sh and test_*.sh of the top level, which call: launch PROGRAM CONFIG DEVICES [ARGUMENT ...]

launch() {
    program=$1 config=$2 devices=$3
    shift 3
    python=python3
    [ -x .venv/bin/python ] && python=.venv/bin/python
    case $devices in
        "" | *[!0-9,]*)
            if [ "$devices" != cpu ]; then
                echo "error: name the devices first: cpu, 0, or 0,1,2,3 (got '$devices')" >&2
                return 2
            fi
            "$python" -m "tools.$program" --cfg "$config" DEVICE cpu "$@"
            ;;
        *,*)
            count=$(echo "$devices" | awk -F, '{ print NF }')
            CUDA_VISIBLE_DEVICES=$devices "$python" -m torch.distributed.run --standalone \
                --nproc-per-node "$count" -m "tools.$program" --cfg "$config" DEVICE cuda "$@"
            ;;
        *)
            CUDA_VISIBLE_DEVICES=$devices "$python" -m "tools.$program" --cfg "$config" DEVICE cuda "$@"
            ;;
    esac
}

# Tests plain, with CBGM and with ground-truth boxes. The checkpoint may come right after the devices; without it the best
# one of the config's training run is taken.
launch_test() {
    config=$1 devices=$2
    shift 2
    first=${1:-}
    if [ -f "$first" ] || [ "$first" != "${first%.pth}" ]; then
        set -- --ckpt "$@"
    fi
    launch test "$config" "$devices" --cbgm --gt "$@"
}
