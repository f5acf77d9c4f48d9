#!/usr/bin/env bash
# Install folkmoot into .venv, which is made when it is missing: tools/install.sh demo|test STAMP
# The stamp is written last, so the next call takes up an interrupted installation.
# Read from the environment: PYTHON, the interpreter of a new .venv; TORCH_INDEX, torch's index.
set -euo pipefail
cd "$(dirname "$0")/.."

stop() {
    echo "$1" >&2
    exit 1
}

kind=$1 stamp=$2
case $kind in
    demo) ours=. ;;
    test) ours='.[test]' ;;
    *) stop "tools/install.sh knows the kinds demo and test, not '$kind'." ;;
esac
torch=$(grep '^torch==' constraints.txt)

pip() {
    .venv/bin/python -m pip "$@"
}

make_venv() {
    local candidate
    for candidate in "${PYTHON:-python3.11}" "${PYTHON:-python3}"; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            "$candidate" -m venv .venv
            return
        fi
    done
    stop "folkmoot needs Python 3.11, 3.12 or 3.13, which ${PYTHON:-python3} is not: name one, as in 'make PYTHON=/path/to/python $kind'."
}

# Without a GPU, torch's usual build for Linux brings gigabytes of libraries for nothing.
# grep ends at the first such name and closes pip's output, before their download.
useless_cuda() {
    ! nvidia-smi >/dev/null 2>&1 && grep -q nvidia < <(pip install --dry-run "$torch" 2>/dev/null)
}

rm -f .venv/stamp-*
pip --version >/dev/null 2>&1 || make_venv
echo "Installing into .venv: a minute or two, once."
pip install -qq 'pip>=23.3' # An older one downloads what a dry run only has to name.

if [ -n "${TORCH_INDEX:-}" ]; then
    pip install -qq --no-deps --index-url "$TORCH_INDEX" "$torch"
elif useless_cuda; then
    stop "Stopped before a download of gigabytes: $torch would bring nvidia packages, and no GPU answers to nvidia-smi here; take PyTorch's CPU build by 'make TORCH_INDEX=https://download.pytorch.org/whl/cpu $kind'."
else
    pip install -qq --no-deps "$torch"
fi
pip install -qq -c constraints.txt -e "$ours"
touch "$stamp"
