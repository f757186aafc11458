#!/usr/bin/env bash
# Starts ddmpi: sets up .venv on the first start, then runs the demo, a job or the tests. See usage() below.
# Under Slurm: sbatch [--ntasks=N] run.sh CONFIG.yaml; it stops softly before the time limit and goes back into the
# queue until all is done. See docs/clusters.md.
#SBATCH --job-name=ddmpi
#SBATCH --output=ddmpi-%j.log
#SBATCH --ntasks=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

usage() {
  cat <<'TEXT'
./run.sh                    the demo: 5,000 files from servers that it starts on this machine
./run.sh test [all]         linters and tests; all adds the slow ones
./run.sh WORDS ...          .venv/bin/ddmpi WORDS ..., as ./run.sh CONFIG.yaml -n 8, ./run.sh birds.csv -o birds
Environment: DDMPI_MPIEXEC  the launcher to use instead of mpiexec, e.g. "srun --mpi=pmi2"
TEXT
}

fail() {
  echo "run.sh: $*" >&2
  exit 2
}

# sbatch runs a copy of this file from its spool folder: then the repository is where sbatch was called.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
submitted=''
if [[ ! -f $root/ddmpi/__init__.py ]]; then
  root=${SLURM_SUBMIT_DIR:-$PWD}
  submitted=${SLURM_JOB_ID:-}
fi
[[ -f $root/ddmpi/__init__.py ]] || fail "call it, or sbatch, in the folder of the repository"
venv=$root/.venv
python=$venv/bin/python

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "no Python 3.10 or newer with the modules venv and ensurepip (Debian: apt-get install python3-venv)"
}

# set_up EXTRAS: does nothing where the same was installed already, or more, from the same settings.
set_up() {
  local extras=$1 base missing='' stamp wanted
  if ! "$python" -c '' 2>/dev/null; then
    base=$(find_python)
    "$base" -m venv --clear "$venv"
  fi
  stamp=$venv/.installed-${extras//,/-}
  wanted=$({ cat "$root/setup.cfg" "$root/pyproject.toml" && "$python" -V && echo "$root"; } | sha256sum)
  # A site's own MPI comes first, for it knows the network. Without one, MPICH is a package like the others.
  if [[ -z ${DDMPI_MPIEXEC:-} && ! -x $venv/bin/mpiexec ]] && ! has_site_launcher; then
    extras=$extras,mpich
    missing=yes
  fi
  if [[ -n $missing ]] || ! grep -qsxF "$wanted" "$stamp"*; then
    echo "run.sh: installing into $venv" >&2
    # setuptools warns of folders beside an editable package; these are meant to be there.
    PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --editable "${root}[$extras]" "pillow>=12.1.1"
    # The site's MPI may be one that mpi4py cannot load.
    if [[ ! -x $venv/bin/mpiexec ]] && ! "$python" -m ddmpi.cli.mpiexec -n 1 true; then
      "$python" -m pip install --quiet --disable-pip-version-check mpich
    fi
    echo "$wanted" >"$stamp"
  fi
  export PATH=$venv/bin:$PATH
}

# Whether an mpiexec is on the PATH that is not ours.
has_site_launcher() {
  local folder folders
  IFS=: read -ra folders <<<"$PATH"
  for folder in "${folders[@]}"; do
    [[ ! -x $folder/mpiexec || $folder -ef $venv/bin ]] || return 0
  done
  return 1
}

wait_for_fleet() {
  local fleet=$1 ready=$2 tenths
  for ((tenths = 0; tenths < 600; tenths++)); do
    [[ ! -f $ready ]] || return 0
    kill -0 "$fleet" 2>/dev/null || fail "the demo's servers ended at once"
    sleep 0.1
  done
  fail "the demo's servers were not ready within 60 s"
}

run_demo() {
  local fleet
  set_up images,hashes,sql
  cd "$root"
  rm -rf demo-out
  mkdir -p demo-out/fleet
  "$python" -m tests.fleet --demo --rows 5000 --folder demo-out/fleet &
  fleet=$!
  # The value now, not the name at exit: the variable is local.
  # shellcheck disable=SC2064
  trap "kill -TERM $fleet 2>/dev/null || true" EXIT
  wait_for_fleet "$fleet" demo-out/fleet/ready.json
  "$venv/bin/ddmpi" configs/demo.yaml -n 4
}

run_tests() {
  local ranks types all=${1:-} run_module=(-m)
  # SeaweedFS is 150 MB, and only slow tests need it and the site.
  if [[ $all == all ]]; then set_up images,test,stores,audit,docs; else set_up images,test; fi
  cd "$root"
  # Hundreds of processes start: each compiles every module again where this is set.
  unset PYTHONDONTWRITEBYTECODE
  ruff check .
  ruff format --check .
  # Beside the tests, which leave a core idle now and then.
  mypy ddmpi tests benchmarks docs &
  types=$!
  shellcheck run.sh .ci/run configs/cluster/slurm.sbatch configs/cluster/pbs.sh configs/cluster/lsf.sh configs/cluster/flux.sh
  if [[ $all == all ]]; then
    "$python" -m tests.whole.dependency_audit
    "$python" -m coverage erase
    run_module=(-m coverage run -m)
  fi
  # Most of these tests wait for a job of their own: beside each other they take half the time.
  "$python" "${run_module[@]}" pytest -n 3 --dist worksteal -m "not mpi and not slow"
  wait "$types"
  for ranks in 1 2 4; do
    # Two hard stops: MPICH's own names the cause, the other one works with any MPI.
    MPIEXEC_TIMEOUT=280 timeout --kill-after=10 300 \
      "$python" -m ddmpi.cli.mpiexec -n "$ranks" "$python" "${run_module[@]}" pytest --with-mpi -m mpi tests/mpi
  done
  if [[ $all == all ]]; then
    report_coverage
    # Random jobs that no commit before had, under the laws.
    "$python" -m tests.simulation --seeds 300
    # Without coverage, which costs memory and time: the log holds the figures that these tests measure, shown of those
    # that pass too. Most of their time they wait for servers that are slow on purpose: two files beside each other.
    "$python" -m pytest -n 2 --dist loadfile -m slow -rP --log-level=INFO --durations=0
  fi
}

# Branches that the fast tests take, of all processes that they start; one that is killed leaves no data.
report_coverage() {
  "$python" -m coverage combine --quiet
  "$python" -m coverage report --include='ddmpi/core/*' --fail-under=90
  "$python" -m coverage report --fail-under=85
}

case ${1:-} in
  '') run_demo ;;
  test)
    [[ $# -le 2 && ${2:-all} == all ]] || fail "test takes nothing or all"
    run_tests "${2:-}"
    ;;
  -h | --help)
    usage
    [[ ! -x $venv/bin/ddmpi ]] || exec "$venv/bin/ddmpi" --help
    ;;
  *)
    set_up images,hashes,sql
    if [[ -n $submitted ]]; then export DDMPI_SUBMITTED=$submitted; fi
    exec "$venv/bin/ddmpi" "$@"
    ;;
esac
