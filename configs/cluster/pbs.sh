#!/usr/bin/env bash
# A job under PBS Pro or OpenPBS: copy this file into the folder of the repository as job.pbs, fill in what your
# site asks for, and there say: qsub job.pbs
# Once before, on a login node: ./run.sh CONFIG.yaml --plan. More: docs/clusters.md.
# Not tested on a real PBS.
#PBS -N ddmpi
#PBS -l select=2:ncpus=32:mpiprocs=32
#PBS -l walltime=04:00:00
#PBS -j oe
#PBS -r n
set -euo pipefail
cd "$PBS_O_WORKDIR"
config=config.yaml
script=job.pbs # this file, to be submitted again
# module load openmpi

# A job that is canceled gets TERM. The ranks get it too, and stop softly; the job is not started again then.
canceled=''
trap 'canceled=yes' TERM INT
trap : USR1
code=0
./run.sh "$config" -n "$(wc -l <"$PBS_NODEFILE")" || code=$?
trap '' TERM
if [[ -z $canceled ]]; then
  .venv/bin/python -m ddmpi.cli.requeue "$config" "$code" "$script" || true
fi
exit "$code"
