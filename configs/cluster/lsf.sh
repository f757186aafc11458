#!/usr/bin/env bash
# A job under LSF: copy this file into the folder of the repository as job.lsf, fill in what your
# site asks for, and there say: bsub <job.lsf
# Once before, on a login node: ./run.sh CONFIG.yaml --plan. More: docs/clusters.md.
# Not tested on a real LSF.
#BSUB -J ddmpi
#BSUB -n 64
#BSUB -W 4:00
#BSUB -wa USR1
#BSUB -wt 3
#BSUB -rn
#BSUB -o ddmpi-%J.log
set -euo pipefail
cd "$LS_SUBCWD"
config=config.yaml
script=job.lsf # this file, to be submitted again
# module load openmpi, or for the MPICH of .venv:
# export DDMPI_MPIEXEC="mpiexec -rmk lsf"

# A job that is canceled gets TERM. The ranks get it too, and stop softly; the job is not started again then.
canceled=''
trap 'canceled=yes' TERM INT
trap : USR1
code=0
./run.sh "$config" -n "$LSB_DJOB_NUMPROC" || code=$?
trap '' TERM
if [[ -z $canceled ]]; then
  .venv/bin/python -m ddmpi.cli.requeue "$config" "$code" "$script" || true
fi
exit "$code"
