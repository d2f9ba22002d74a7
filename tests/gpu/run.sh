#!/usr/bin/env bash
# What is checked and measured on a machine with a card, the most valuable figure first, in ten minutes at most.
#
#   tests/gpu/run.sh FOLDER [PEER]
#
# In the root of the repository. FOLDER has `blip2` and `golden`, or both as `.xz`, as `cargo xtask cuda pack` leaves them.
# PEER is a stage-1 step in PyTorch that takes --batch, --steps and --device and prints one JSON line.
# To rehearse: DEVICE (cuda) may be `cpu`, with small sizes; with SIZES=small a card has them too, and STRETCH=N gives each step N
# times its seconds, for a double of the driver that runs kernels. OUT (gpu-out) takes the logs and summary.txt; ALLOWED (600) are
# the seconds: what would not end in time is cut off or left out, and said to be. PYTHON (python3) runs PEER and compares.
# Ends with 1 if a check fails.
set -u
folder=${1:?usage: tests/gpu/run.sh FOLDER [PEER]} peer=${2:-}
device=${DEVICE:-cuda} sizes=${SIZES:-paper} stretch=${STRETCH:-1} out=${OUT:-gpu-out} allowed=${ALLOWED:-600} python=${PYTHON:-python3}
[ "$device" = cpu ] && sizes=small
mkdir -p "$out"
: >"$out/summary.txt"
failed=0
say() { echo "$*" | tee -a "$out/summary.txt"; }
left() { echo $((allowed - SECONDS)); }

# check NAME LIMIT COMMAND…: runs it for LIMIT seconds at most and less where less is left; its output is $out/NAME.txt.
check() {
  local name=$1 limit=$(($2 * stretch)) rc
  shift 2
  if [ "$(left)" -lt 10 ]; then
    say "$name: LEFT OUT, no time"
    return 2
  fi
  [ "$(left)" -lt "$limit" ] && limit=$(left)
  local started=$SECONDS
  timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err"
  rc=$?
  case $rc in
    0) say "$name: ok, $((SECONDS - started)) s" ;;
    124) say "$name: CUT OFF after $limit s" ;;
    *)
      say "$name: FAILED ($rc): $(tail -n 2 "$out/$name.err" "$out/$name.txt" | cut -c1-300 | tr '\n' ' ')"
      failed=1
      ;;
  esac
  return $rc
}

for file in blip2 golden; do
  [ -f "$folder/$file" ] || { [ -f "$folder/$file.xz" ] && xz -dk "$folder/$file.xz"; }
  [ -f "$folder/$file" ] && chmod +x "$folder/$file"
done
blip2=$folder/blip2 golden=$folder/golden
[ -x "$blip2" ] || { say "no blip2 in $folder"; exit 1; }
# libdevice travels with the binary where the machine has no toolkit.
if [ ! -d "${CUDA_PATH:-/usr/local/cuda}/nvvm/libdevice" ] && [ -d "$folder/nvvm" ]; then
  export CUDA_PATH=$folder
fi
export BLIP2_LOG=warn
say "$("$blip2" --version), device $device, $(nproc) cores"
[ "$device" = cpu ] || { nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | head -n 8 | tee -a "$out/summary.txt"; }
ldd "$blip2" | grep 'not found' | tee -a "$out/summary.txt"

if [ "$sizes" = small ]; then
  stage1=stage1-quickstart stage2="stage2-quickstart" batch=8 peer_sizes="--batch 2 --steps 1 --device cpu --no-encoder"
else
  stage1=stage1-vit-g stage2="stage2-opt-2.7b stage2-flan-t5-xl" batch=104 peer_sizes="--batch 104 --steps 20 --device $device"
fi

# 1. Samples a second beside PyTorch, in the numbers in which both are used.
bench() { # NAME LIMIT PRESET BATCH [OPTION…]
  local name=$1 limit=$2 preset=$3 size=$4
  shift 4
  check "$name" "$limit" "$blip2" bench step --preset "$preset" --device "$device" --batch "$size" --steps 5 --json "$@" &&
    say "  $(tail -n 1 "$out/$name.txt")"
}
bench bench-stage1-bf16 150 "$stage1" "$batch" --frozen-dtype bf16 --compute bf16
if [ -n "$peer" ]; then
  if "$python" -c 'import torch' 2>/dev/null; then
    # shellcheck disable=SC2086
    check peer-stage1 90 "$python" "$peer" $peer_sizes && say "  $(tail -n 1 "$out/peer-stage1.txt")"
  else
    say "peer-stage1: LEFT OUT, $python has no torch"
  fi
fi

# 2. The reference's numbers, with the CPU's tolerances.
if [ -x "$golden" ]; then
  export BLIP2_TEST_DEVICE=$device BLIP2_GOLDEN_DIR=$PWD/tests/golden
  check golden 150 "$golden" --test-threads=1
  grep -aE '^test .*FAILED|^test result|panicked at|apart' "$out/golden.txt" | cut -c1-180 | tee -a "$out/summary.txt"
else
  say "golden: LEFT OUT, not in $folder"
fi

# 3. Ten steps of each stage, and their losses beside the CPU's.
settings="train.slots=2 stage1.steps=10 stage2.steps=10 stage1.batch=8 stage2.batch=8
  stage1.optimizer.warmup_steps=2 stage2.optimizer.warmup_steps=2 model.qformer.layers=2
  checkpoint.every_steps=100 launch.restarts=0"
train() { # NAME LIMIT DEVICE WORKERS [KEY=VALUE…]
  local name=$1 limit=$2 on=$3 workers=$4 arguments=() setting
  shift 4
  for setting in $settings "run.root=$out/$name" "$@"; do arguments+=(--set "$setting"); done
  rm -rf "${out:?}/$name"
  check "$name" "$limit" "$blip2" train --config configs/quickstart.toml --workers "$workers" --device "$on" "${arguments[@]}"
}
compare() { # NAME TOLERANCE
  "$python" - "$out" "$1" "$2" <<'PYTHON' | tee -a "$out/summary.txt"
import json, sys
out, name, tolerance = sys.argv[1], sys.argv[2], float(sys.argv[3])
losses = lambda run: [json.loads(line)["values"]["loss"] for line in open(f"{out}/{run}/metrics.jsonl")]
one, other = losses("cpu-f32"), losses(name)
apart = [abs(a - b) / abs(a) for a, b in zip(one, other)]
within = len(one) == len(other) == 20 and max(apart) <= tolerance
print(f"  losses of {name}: {len(other)} steps, at most {max(apart):.1e} apart, allowed {tolerance:.0e}: {'ok' if within else 'FAILED'}")
sys.exit(not within)
PYTHON
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
}
train cpu-f32 60 cpu 1 model.frozen_dtype=f32
train one-f32 120 "$device" 1 model.frozen_dtype=f32 && compare one-f32 1e-4
# 4. Two workers that share the card end with the bits of one.
if train two-f32 120 "$device" 2 model.frozen_dtype=f32 launch.share_devices=true && [ -d "$out/one-f32" ]; then
  one=$("$blip2" checkpoint digest "$out/one-f32") two=$("$blip2" checkpoint digest "$out/two-f32")
  if [ -n "$one" ] && [ "$one" = "$two" ]; then say "  two workers have the bits of one: $one"; else say "  two workers: FAILED: $two, not $one"; failed=1; fi
fi
train one-tf32 90 "$device" 1 model.frozen_dtype=f32 train.tf32=true && compare one-tf32 2e-2
train one-frozen-bf16 90 "$device" 1 model.frozen_dtype=bf16 && compare one-frozen-bf16 2e-2
train one-compute-bf16 90 "$device" 1 model.frozen_dtype=bf16 train.compute=bf16 && compare one-compute-bf16 2e-2

# 5. The other sizes, and float32.
for preset in $stage2; do bench "bench-$preset" 120 "$preset" $((batch / 2)) --frozen-dtype bf16 --compute bf16; done
bench bench-stage1-f32 120 "$stage1" "$batch" --frozen-dtype f32
bench bench-stage1-in-turn 120 "$stage1" "$batch" --frozen-dtype bf16 --compute bf16 --no-overlap

say "$([ $failed = 0 ] && echo 'no check failed' || echo 'A CHECK FAILED'), $SECONDS s"
exit $failed
