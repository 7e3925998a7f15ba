#!/usr/bin/env bash
# Puts NVIDIA's run-time compiler into target/nvrtc, where tests and the binary look for it. It needs no GPU and no driver. The licence is
# NVIDIA's: the library is fetched from PyPI when wanted and is no part of this repository.
set -euo pipefail
cd "$(dirname "$0")/.."

# the line of the drivers in use: newer compilers emit code that those refuse
version=13.0.88
folder=target/nvrtc

if [ -e "$folder/libnvrtc.so.13" ]; then
    echo "the CUDA compiler is in $folder"
    exit 0
fi
if ! command -v python3 >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
    echo "no python3 with pip: kernels will not be compiled, and tests of them are skipped"
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if ! python3 -m pip download --quiet --no-deps --dest "$scratch" "nvidia-cuda-nvrtc==$version"; then
    echo "could not fetch nvidia-cuda-nvrtc $version: kernels will not be compiled, and tests of them are skipped"
    exit 0
fi
mkdir -p "$folder"
python3 - "$scratch" "$folder" <<'PYTHON'
import pathlib, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        file = name.rsplit("/", 1)[-1]
        if file.startswith(("libnvrtc.so.", "libnvrtc-builtins.so.")):
            pathlib.Path(sys.argv[2], file).write_bytes(archive.read(name))
PYTHON
echo "the CUDA compiler $version is in $folder"
