# Runs a program of tools/ on the devices named first: `cpu`, one CUDA device (`0`) or several (`0,1,2,3`, through torchrun).
# Sourced by the run_*.sh and test_*.sh of the top level, which call: launch PROGRAM CONFIG [DEVICES [ARGUMENT ...]]

# Prints the value of CUDA_VISIBLE_DEVICES for a list of numbers or UUIDs, each named once. Where a scheduler has set
# CUDA_VISIBLE_DEVICES, numbers count its devices.
visible_devices() {
    awk -v asked="$1" -v visible="${CUDA_VISIBLE_DEVICES:-}" 'BEGIN {
        count = split(visible, given, ",")
        for (i = 1; i <= split(asked, names, ","); i++) {
            name = names[i]
            if (name !~ /^([0-9]+|(GPU|MIG)-[-0-9A-Za-z\/]+)$/ || seen[name ~ /^[0-9]+$/ ? name + 0 : name]++) exit 1
            if (count && name ~ /^[0-9]+$/) name = given[name + 1]
            if (name == "") exit 1
            result = result (i > 1 ? "," : "") name
        }
        if (result == "") exit 1
        print result
    }'
}

launch() {
    program=$1 config=$2 devices=${3:-}
    shift $(($# < 3 ? $# : 3))
    python=python3
    [ -x .venv/bin/python ] && python=.venv/bin/python
    if [ "$devices" = cpu ]; then
        "$python" -m "tools.$program" --cfg "$config" DEVICE cpu "$@"
        return
    fi
    if ! visible=$(visible_devices "$devices"); then
        of=${CUDA_VISIBLE_DEVICES:+ of CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES}
        echo "error: name the devices first: cpu, 0, or 0,1,2,3, each once$of (got '$devices')" >&2
        return 2
    fi
    export CUDA_VISIBLE_DEVICES="$visible"
    case $visible in
        *,*)
            count=$(echo "$visible" | awk -F, '{ print NF }')
            "$python" -m torch.distributed.run --standalone --nproc-per-node "$count" \
                -m "tools.$program" --cfg "$config" DEVICE cuda "$@"
            ;;
        *)
            "$python" -m "tools.$program" --cfg "$config" DEVICE cuda "$@"
            ;;
    esac
}

# Tests plain, with CBGM and with ground-truth boxes. The checkpoint may come right after the devices; without it the best
# one of the config's training run is taken.
launch_test() {
    config=$1 devices=${2:-} checkpoint=${3:-}
    shift $(($# < 2 ? $# : 2))
    if [ -f "$checkpoint" ] || [ "$checkpoint" != "${checkpoint%.pth}" ]; then
        set -- --ckpt "$@"
    fi
    launch test "$config" "$devices" --cbgm --gt "$@"
}
