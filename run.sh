#!/usr/bin/env bash
# Starts ddmpi: sets up .venv on the first start, then runs the demo, a job or the tests. See usage() below.
# Under Slurm: sbatch [--ntasks=N] run.sh CONFIG.yaml; it stops softly before the time limit and goes back into the
# queue until all is done. See docs/clusters.md.
#SBATCH --job-name=ddmpi
#SBATCH --output=ddmpi-%j.log
#SBATCH --ntasks=4
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

usage() {
  cat <<'TEXT'
./run.sh                            the demo: 5,000 files from servers that it starts on this machine
./run.sh CONFIG.yaml [options] [-n N]
                                    a job with N ranks (default: Slurm's tasks, else the number of CPUs)
./run.sh test [all]                 linters and tests; all adds the slow ones
Environment: DDMPI_MPIEXEC          the launcher to use instead of mpiexec, e.g. "srun --mpi=pmi2"
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
  find_site_launcher
  if [[ -z ${DDMPI_MPIEXEC:-} && -z $site && ! -x $venv/bin/mpiexec ]]; then
    extras=$extras,mpich
    missing=yes
  fi
  if [[ -n $missing ]] || ! grep -qsxF "$wanted" "$stamp"*; then
    echo "run.sh: installing into $venv" >&2
    # setuptools warns of folders beside an editable package; these are meant to be there.
    PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --editable "${root}[$extras]" "pillow>=12.1.1"
    echo "$wanted" >"$stamp"
  fi
  export PATH=$venv/bin:$PATH
}

# Sets site to the first mpiexec on the PATH that is not ours.
find_site_launcher() {
  local folder folders
  site=''
  IFS=: read -ra folders <<<"$PATH"
  for folder in "${folders[@]}"; do
    if [[ -x $folder/mpiexec && ! $folder -ef $venv/bin ]]; then
      site=$folder/mpiexec
      return
    fi
  done
}

is_open_mpi() {
  "$1" --version 2>&1 | grep -qE 'Open MPI|OpenRTE|PRRTE'
}

# Prints the library of a launcher: beside it, else where the loader finds one of its kind. Debian's MPICH has a name of
# its own.
library_of() {
  local name names=(libmpi.so.12 libmpich.so.12) folder folders prefix
  prefix=$(dirname "$(dirname "$(readlink -f "$1")")")
  ! is_open_mpi "$1" || names=(libmpi.so.40)
  IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
  for name in "${names[@]}"; do
    for folder in "$prefix/lib" "$prefix/lib64" "$prefix/lib/release" "${folders[@]}"; do
      if [[ -e $folder/$name ]]; then
        echo "$folder/$name"
        return
      fi
    done
    folder=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | awk -v name="$name" '$1 == name { print $NF; exit }') || true
    if [[ -n $folder ]]; then
      echo "$folder"
      return
    fi
  done
}

# Has mpi4py load the library of the site's launcher; false if it cannot.
use_site_library() {
  local library
  library=$(library_of "$site")
  if [[ $library == */libmpich.so.12 ]]; then
    mkdir -p "$venv/site-mpi"
    ln -sfn "$library" "$venv/site-mpi/libmpi.so.12"
    library=$venv/site-mpi/libmpi.so.12
    export LD_LIBRARY_PATH=$venv/site-mpi${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
  if [[ -n $library && -z ${MPI4PY_LIBMPI:-} ]]; then
    export MPI4PY_LIBMPI=$library
  fi
  "$python" -c 'import mpi4py; mpi4py.rc.initialize = False; import mpi4py.MPI' 2>/dev/null
}

# Sets the array launcher to what starts as many ranks as its next argument says.
find_launcher() {
  if [[ -n ${DDMPI_MPIEXEC:-} ]]; then
    read -ra launcher <<<"$DDMPI_MPIEXEC"
  else
    launcher=("$venv/bin/mpiexec")
    if [[ -n $site ]] && use_site_library; then
      launcher=("$site")
    elif [[ -n $site ]]; then
      echo "run.sh: mpi4py cannot load the MPI of $site; taking MPICH from $venv" >&2
      unset MPI4PY_LIBMPI
      [[ -x ${launcher[0]} ]] || "$python" -m pip install --quiet --disable-pip-version-check mpich
    fi
    if is_open_mpi "${launcher[0]}"; then
      [[ -n ${SLURM_JOB_ID:-} ]] || launcher+=(--oversubscribe)
      [[ $(id -u) != 0 ]] || launcher+=(--allow-run-as-root)
    fi
  fi
  launcher+=(-n)
}

# Runs a launcher, hands TERM, INT and HUP on to it as USR1, and returns its code. USR1 reaches the ranks under every MPI;
# on TERM or INT Open MPI's launcher kills them within a second, and on HUP MPICH's does.
run_forwarding() {
  local child code interrupted=yes
  # A session of its own: the terminal sends INT to the others of ours as well.
  setsid "$@" &
  child=$!
  # A signal also ends wait.
  trap 'interrupted=yes; kill -USR1 "$child" 2>/dev/null || true' TERM INT HUP
  while [[ -n $interrupted ]]; do
    interrupted='' code=0
    wait "$child" || code=$?
  done
  trap - TERM INT HUP
  return "$code"
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
  find_launcher
  cd "$root"
  rm -rf demo-out
  mkdir -p demo-out/fleet
  "$python" -m tests.fleet --demo --rows 5000 --folder demo-out/fleet &
  fleet=$!
  # The value now, not the name at exit: the variable is local.
  # shellcheck disable=SC2064
  trap "kill -TERM $fleet 2>/dev/null || true" EXIT
  wait_for_fleet "$fleet" demo-out/fleet/ready.json
  run_forwarding "${launcher[@]}" 4 "$python" -m ddmpi configs/demo.yaml
}

run_job() {
  local ranks=${SLURM_NTASKS:-} alone='' arguments=() code=0
  while (($#)); do
    case $1 in
      -n)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "-n needs the number of ranks"
        ranks=$2
        shift
        ;;
      presets | --check | --plan | --status | --verify | --audit | --forget)
        alone=yes
        arguments+=("$1")
        ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
  set_up images,hashes,sql
  # These read and print; they take one process.
  [[ -z $alone ]] || exec "$python" -m ddmpi "${arguments[@]}"
  find_launcher
  if [[ -z $submitted ]] && ! is_open_mpi "${launcher[0]}"; then
    exec "${launcher[@]}" "${ranks:-$(nproc)}" "$python" -m ddmpi "${arguments[@]}"
  fi
  if ((${SLURM_RESTART_COUNT:-0} > 0 && ${#arguments[@]} > 1)); then
    echo "run.sh: requeued: ${arguments[*]:1} was done in the job's first run and is left out" >&2
    arguments=("${arguments[0]}")
  fi
  run_forwarding "${launcher[@]}" "${ranks:-$(nproc)}" "$python" -m ddmpi "${arguments[@]}" || code=$?
  if [[ -n $submitted ]]; then
    # Slurm ends the job's processes while it is put back.
    trap '' TERM
    "$python" -m ddmpi.cli.requeue "${arguments[0]}" "$code" || true
  fi
  return "$code"
}

run_tests() {
  local ranks types all=${1:-} run_module=(-m)
  # SeaweedFS is 150 MB, and only slow tests need it and the site.
  if [[ $all == all ]]; then set_up images,test,stores,audit,docs; else set_up images,test; fi
  find_launcher
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
      "${launcher[@]}" "$ranks" "$python" "${run_module[@]}" pytest --with-mpi -m mpi tests/mpi
  done
  if [[ $all == all ]]; then
    report_coverage
    # Random jobs that no commit before had, under the laws.
    "$python" -m tests.simulation --seeds 300
    # Without coverage, which costs memory and time: the log holds the figures that these tests measure, shown of those
    # that pass too.
    "$python" -m pytest -m slow -rP --log-level=INFO --durations=0
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
  -h | --help) usage ;;
  test)
    [[ $# -le 2 && ${2:-all} == all ]] || fail "test takes nothing or all"
    run_tests "${2:-}"
    ;;
  -*) fail "the config comes first: ./run.sh CONFIG.yaml [options] [-n N]" ;;
  *) run_job "$@" ;;
esac
