#!/usr/bin/env bash
# A job under Flux: copy this file into the folder of the repository as job.flux, fill in what your
# site asks for, and there say: flux batch job.flux
# Once before, on a login node: ./run.sh CONFIG.yaml --plan. More: docs/clusters.md.
# Not tested on a real Flux.
# flux: --job-name=ddmpi
# flux: --nodes=2
# flux: --nslots=64
# flux: --time-limit=4h
# flux: --output=ddmpi-{{id}}.log
set -euo pipefail
config=config.yaml
script=job.flux # this file, to be submitted again
export DDMPI_MPIEXEC=${DDMPI_MPIEXEC:-flux run}

# A job that is canceled gets TERM. The ranks get it too, and stop softly; the job is not started again then.
canceled=''
trap 'canceled=yes' TERM INT
trap : USR1
code=0
./run.sh "$config" -n "$(flux resource list -n -o "{ncores}")" || code=$?
trap '' TERM
if [[ -z $canceled ]]; then
  .venv/bin/python -m ddmpi.cli.requeue "$config" "$code" "$script" || true
fi
exit "$code"
