#!/usr/bin/env bash
# A real Slurm of one node on loopback, for tests: `slurm.sh install` (as root, Debian's packages), `eval "$(slurm.sh up DIR)"`,
# `slurm.sh down DIR`. Key, configuration, state and logs lie in DIR; nothing of the machine's own Slurm is touched.
set -euo pipefail

SLOTS=${HEADWATER_SLURM_SLOTS:-4} # jobs of one CPU at a time, however many CPUs there are

usage() { echo "usage: slurm.sh install | up DIR | down DIR" >&2; exit 2; }

need() { command -v "$1" > /dev/null || { echo "slurm.sh: expected $1, found none. Run: $0 install" >&2; exit 3; }; }

install_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends slurm-wlm munge
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

configuration() { # of one node, which has SLOTS CPUs whatever the machine has
  local host
  host=$(hostname -s)
  cat << CONF
ClusterName=headwater
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$1/munge/socket,cred_expire=5
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$SLOTS State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
}

up() {
  for program in munged slurmctld slurmd sbatch squeue; do need "$program"; done
  mkdir -p "$1"/{munge,state,spool}
  chmod 700 "$1"/munge
  local dir
  dir=$(cd "$1" && pwd)
  head -c 1024 /dev/urandom > "$dir/munge/key"
  chmod 400 "$dir/munge/key"
  munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" > "$dir/munge.out" 2>&1
  chmod 711 "$dir/munge"
  configuration "$dir" > "$dir/slurm.conf"
  export SLURM_CONF="$dir/slurm.conf"
  slurmctld > "$dir/slurmctld.out" 2>&1
  slurmd -f "$SLURM_CONF" -N "$(hostname -s)" > "$dir/slurmd.out" 2>&1
  for _ in $(seq 60); do
    [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && { echo "export SLURM_CONF=$SLURM_CONF"; return; }
    sleep 0.5
  done
  echo "slurm.sh: expected an idle node, found $(sinfo -h -o '%T %E' 2>&1). Logs: $dir" >&2
  tail -n 5 "$dir"/slurmctld.log "$dir"/slurmd.log >&2 || true
  down "$dir"
  exit 1
}

down() {
  SLURM_CONF="$1/slurm.conf" scancel --user="$(id -un)" > /dev/null 2>&1 || true
  for file in "$1"/slurmd.pid "$1"/slurmctld.pid "$1"/munge/pid; do
    [ -s "$file" ] || continue
    local process
    process=$(cat "$file")
    kill "$process" 2> /dev/null || continue
    for _ in $(seq 50); do kill -0 "$process" 2> /dev/null || break; sleep 0.1; done
    kill -9 "$process" 2> /dev/null || true
  done
}

case "${1:-}" in
  install) install_packages ;;
  up) [ $# = 2 ] || usage; up "$2" ;;
  down) [ $# = 2 ] || usage; down "$2" ;;
  *) usage ;;
esac
