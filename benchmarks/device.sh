#!/usr/bin/env bash
# All that is asked of a machine with a GPU, in one call of eight minutes that needs no network.
#
#   bash benchmarks/device.sh --wheels           where there is a network: fetches into build/device-wheels
#                                                what that machine may lack (Python 3.12, x86-64 Linux)
#   OUT=out bash benchmarks/device.sh            there, from the repository's root: the tests marked gpu, then
#                                                benchmarks/gpu.py; leaves device.log, tests.xml, gpu.json and
#                                                profiles.txt in $OUT
#   OUT=out bash benchmarks/device.sh --dry-run  on any machine: the same without a GPU, tests only collected
#
# PYTHON is the interpreter that has torch (python3), SECONDS_IN_ALL the time for all (465).
# The package is not installed but copied to build/device-site, with the wheels of what is missing; nothing
# that is there is replaced. PYTHONSAFEPATH keeps the checkout itself, where dpa2calc has no training, from being
# imported instead. A stage that fails does not stop the next one.
# Exit status, added up: 1 something is missing, 2 tests failed, 4 the benchmark failed, 8 no GPU was seen.
set -uo pipefail
cd "$(dirname "$0")/.."
WHEELS=build/device-wheels SITE=$PWD/build/device-site
PYTHON=${PYTHON:-python3} OUT=$(realpath -m "${OUT:-build/device-out}") MODE=${1:-}

# Import names; where the package on PyPI is called otherwise, name:package.
PRESENT="torch numpy scipy numba h5py safetensors matplotlib"
CARRIED="ase vesin tqdm yaml:pyyaml filelock pytest iniconfig pluggy packaging pygments dftd3 cffi pycparser"

if [ "$MODE" = --wheels ]; then
    set -e
    rm -rf "$WHEELS"
    platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 28 27 24 17 12 5)
    # shellcheck disable=SC2046,SC2086
    "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp $platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
        -d "$WHEELS" $(for name in $CARRIED; do echo "${name#*:}"; done)
    ls -sh "$WHEELS"
    exit
fi

mkdir -p "$OUT"
exec > >(tee -a "$OUT/device.log") 2>&1
trap "exec >&- 2>&-; wait $!" EXIT  # the log is whole before the machine takes its files
export PYTHONUNBUFFERED=1 MPLBACKEND=Agg PIP_DISABLE_PIP_VERSION_CHECK=1
status=0 limit=${SECONDS_IN_ALL:-465} device=cuda quick=()
[ "$MODE" = --dry-run ] && device=cpu quick=(--quick) && export OMP_NUM_THREADS=1
left() { echo $((limit - SECONDS > 5 ? limit - SECONDS : 5)); }
say() { echo "== $(date +%H:%M:%S), $SECONDS s: $*"; }
failed() { say "FAILED: $2"; status=$((status | $1)); }

say "machine"
nproc; free -g | sed -n 2p; df -h . | tail -1; command -v gcc nvcc || true
[ "$device" = cpu ] || nvidia-smi || true

say "packages"
rm -rf "$SITE" && mkdir -p "$SITE" || failed 1 "$SITE cannot be made"
missing=$(PYTHONSAFEPATH=1 timeout 60 "$PYTHON" - $CARRIED <<'PY'
import importlib.util, sys
print(*(n.partition(":")[2] or n for n in sys.argv[1:] if importlib.util.find_spec(n.partition(":")[0]) is None))
PY
) || failed 1 "$PYTHON does not run"
if [ -n "$missing" ]; then
    say "installing $missing"
    for name in $missing; do  # one by one: one that cannot be installed keeps nothing else out
        timeout 60 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --find-links "$WHEELS" \
            --target "$SITE" "$name" || echo "not installed: $name"
    done
fi
cp -r dpa2calc "$SITE/" && cp -r training applications "$SITE/dpa2calc/" || failed 1 "the package cannot be copied"
export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
PYTHONSAFEPATH=1 timeout 120 "$PYTHON" - "$device" $PRESENT $CARRIED <<'PY' || failed 1 "see above"
import importlib, importlib.metadata, sys
device, *names = sys.argv[1:]
optional, bad = ("dftd3", "cffi", "pycparser"), []
for name in (*names, *(["triton"] if device == "cuda" else []), "dpa2calc.training", "dpa2calc.applications"):
    name, _, package = name.partition(":")
    try:
        module = importlib.import_module(name)
        version = importlib.metadata.version(package or name) if "." not in name else ""
        print(f"{name:22s} {version:14s} {getattr(module, '__file__', '')}")
    except Exception as error:
        print(f"{name:22s} MISSING: {error!r}")
        bad += [name] if name not in optional else []
if bad:
    sys.exit(f"missing: {', '.join(bad)}")
PY
if [ "$device" = cuda ]; then
    timeout 60 "$PYTHON" -c 'import torch; print(torch.version.cuda, torch.cuda.get_device_name(0), torch.ones(2, device="cuda").sum())' \
        || { failed 8 "PyTorch sees no GPU"; exit $status; }
fi

tests=(--junitxml "$OUT/tests.xml" --durations=8 --maxfail=60 -o faulthandler_timeout=90)
[ "$device" = cuda ] && "$PYTHON" -c 'import xdist' 2>&- && tests+=(-n 6)
[ "$device" = cpu ] && tests=(--collect-only)
say "tests"
# Only files with such tests: others need packages that are not there. Half of the time at most.
# shellcheck disable=SC2046
PYTHONSAFEPATH=1 timeout -s INT -k 15 $(($(left) / 2)) "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider "${tests[@]}" \
    $(grep -rlE "mark\.gpu|import DEVICES" tests --include='test_*.py') || failed 2 "tests"

say "benchmark"
for _ in 1 2 3 4; do  # a process whose GPU context is lost, or that crashed, is followed by another
    timeout -k 10 "$(left)" "$PYTHON" benchmarks/gpu.py --output "$OUT/gpu.json" --device "$device" \
        --seconds $(($(left) - 40)) "${quick[@]}"
    result=$?
    [ $result = 75 ] || [ $result -ge 128 ] || break
    say "the benchmark ended with $result and goes on in a new process"
done
[ $result = 0 ] || failed 4 "benchmark ($result)"
say "done, exit status $status"
exit $status
