#!/usr/bin/env bash
# Make .venv-lm-eval: lm-eval in an environment of its own, since its packages would move those of .venv. torch and
# transformers are of the same versions as in .venv, so that both load the same models. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LM_EVAL=0.4.13
readonly VENV=.venv-lm-eval
readonly LOG=$VENV/install.log

say() { printf '%s\n' "$*"; }

version_in() { "$1/bin/python" -c "from importlib.metadata import version; print(version('$2'))" 2>/dev/null; }

pip_install() { "$VENV/bin/python" -m pip install --quiet --no-input --progress-bar off "$@" 2>>"$LOG"; }

main() {
    if [[ $(version_in "$VENV" lm_eval) == "$LM_EVAL" && -n $(version_in "$VENV" torch) ]]; then
        say "Already installed in $VENV."
        return
    fi
    .venv/bin/python -m venv --clear "$VENV"
    : >"$LOG"
    local torch
    torch=$(version_in .venv torch)
    say "Installing lm-eval $LM_EVAL beside torch $torch into $VENV."
    # A CPU build is not on every index; the usual one runs on CPUs too.
    pip_install "torch==$torch" || pip_install "torch==${torch%%+*}"
    if ! pip_install "lm_eval[hf]==$LM_EVAL" "torch==$(version_in "$VENV" torch)" \
        "transformers==$(version_in .venv transformers)"; then
        printf 'lm-eval could not be installed:\n' >&2
        grep -v '^WARNING: ' "$LOG" | tail -n 5 >&2
        exit 1
    fi
    say "Installed $(version_in "$VENV" lm_eval)."
}

main
