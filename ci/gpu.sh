#!/usr/bin/env bash
# Every check that needs a GPU, in one call of under ten minutes: kernels against their oracles on the device, the
# sanitizer on small shapes, the whole decoder, the timed ladders beside PyTorch and cuBLAS. Needs no network.
#
#   ci/gpu.sh OUTPUT      OUTPUT: an empty folder; what was measured is there even if a later step fails or is stopped
#
# Where cargo is absent, the programs must have been built before, by `ci/gpu.sh --build` on another machine.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=target/gpu

build() {
    ci/nvrtc.sh
    rm -rf "$programs"
    mkdir -p "$programs"
    cargo build --release --no-default-features --features small
    cp target/release/infermark "$programs/"
    # test programs under names that do not change
    cargo test --release --no-run --message-format=json -p cuda-kernels -p engine 2>/dev/null |
        python3 -c '
import json, shutil, sys
for line in sys.stdin:
    message = json.loads(line)
    target = message.get("target", {})
    if message.get("executable") and "test" in target.get("kind", []):
        shutil.copy(message["executable"], sys.argv[1] + "/test-" + target["name"])
' "$programs"
    strip "$programs"/*
    xz -6 "$programs"/*
    pwd >"$programs/built-at"
    ls -l "$programs"
}

if [ "${1:-}" = --build ]; then
    build
    exit 0
fi
out=${1:?usage: ci/gpu.sh OUTPUT, or ci/gpu.sh --build}
mkdir -p "$out"
[ -e "$programs/infermark" ] || [ -e "$programs/infermark.xz" ] || build
for packed in "$programs"/*.xz; do
    if [ -e "$packed" ]; then
        python3 -c 'import lzma, sys; open(sys.argv[1][:-3], "wb").write(lzma.open(sys.argv[1]).read())' "$packed"
        rm "$packed"
    fi
done
chmod +x "$programs"/*
# tests look for their fixtures where they were built
built_at=$(cat "$programs/built-at")
if [ ! -e "$built_at" ]; then mkdir -p "$(dirname "$built_at")" && ln -s "$PWD" "$built_at"; fi

# Kernels are compiled for the driver that is here: by the toolkit's compiler, or by the one that PyTorch brings, beside which lies what was
# compiled. cuBLASLt is the system's, or PyTorch's.
brought=$(python3 -c 'import importlib.util as u; s = u.find_spec("nvidia"); print(*(s.submodule_search_locations if s else []))' 2>/dev/null || true)
mkdir -p target/nvrtc
for lib in $(for folder in $brought; do printf '%s\n' "$folder"/cu13/lib "$folder"/cuda_nvrtc/lib "$folder"/cublas/lib; done); do
    if [ ! -e target/nvrtc/libnvrtc.so.13 ] && [ ! -e target/nvrtc/libnvrtc.so.12 ]; then
        for file in "$lib"/libnvrtc*; do
            if [ -e "$file" ]; then ln -sf "$file" target/nvrtc/; fi
        done
    fi
    if [ -d "$lib" ]; then export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib"; fi
done

failed=0
# step SECONDS NAME COMMAND...: runs it for so long at most, keeps its output, goes on whatever happens.
step() {
    local limit=$1 name=$2 began=$SECONDS code=0
    shift 2
    printf '==> %s\n' "$name"
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    tail -n 15 "$out/$name.log"
    printf '==> %s: exit code %d, %d s\n' "$name" "$code" $((SECONDS - began))
    [ "$code" -eq 0 ] || failed=1
}

nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1 || { echo "no NVIDIA driver here: nothing was checked"; exit 1; }
step 30 doctor "$programs/infermark" doctor
# the tests use a real device where there is one, and say so
step 150 kernels "$programs/test-kernels" --nocapture --test-threads=4
step 60 decoder "$programs/test-parity" gpu --nocapture
if command -v compute-sanitizer >/dev/null; then
    step 60 sanitizer compute-sanitizer --error-exitcode 1 "$programs/test-kernels" devices:: rows:: --test-threads=1
else
    echo "no compute-sanitizer on this machine: skipped"
fi
step 260 ladders "$programs/infermark" run gpu-kernels --set budget.seconds=180 --python python3 --output "$out/run"
step 60 decoder-speed "$programs/infermark" run gpu-decoder --output "$out/run-decoder"
nvidia-smi -q >"$out/nvidia-smi-after.txt" 2>&1 || true
exit "$failed"
