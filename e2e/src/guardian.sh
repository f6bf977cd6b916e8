# Runs clean-up actions when the process that feeds its standard input is gone.
#
# Input, one line each: "add ID ACTION" or "forget ID", where ACTION is a call of
# one of the functions below with quoted arguments. At end of file the actions
# that are left run in reverse order of their arrival.

# Ctrl-C and a closing terminal reach the owner, whose end we must survive.
trap '' HUP INT TERM QUIT PIPE
# Nothing may be pinned by our working folder.
cd /

say() { echo "springtide guardian: $*" >&2; }

# kill_group PGID START: START is the leader's start time in clock ticks after
# boot; another one means that the number was given to a stranger meanwhile.
kill_group() {
  stat=
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null
  # Without a leader the number still belongs to what is left of its group.
  [ -z "$stat" ] || [ "$(start_of "$stat")" = "$2" ] || return 0
  kill -s KILL -- "-$1" 2>/dev/null || return 0
  tries=100
  while [ $tries -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do
    sleep 0.05
    tries=$((tries - 1))
  done
}

# start_of LINE: the 22nd field of /proc/PID/stat; the name before it may hold spaces.
start_of() {
  set -- ${1##*) }
  echo "${20}"
}

# remove_folder PATH: never descends into a mount that was left behind.
remove_folder() {
  tries=20
  while [ -e "$1" ] && [ $tries -gt 0 ]; do
    rm -rf --one-file-system -- "$1" 2>/dev/null && return 0
    sleep 0.1
    tries=$((tries - 1))
  done
  [ ! -e "$1" ] || say "could not remove $1"
}

# unmount PATH
unmount() {
  grep -qF -- " $1 " /proc/self/mounts || return 0
  timeout 10 umount -- "$1" 2>/dev/null || timeout 10 umount -l -- "$1" || say "could not unmount $1"
}

# remove_cgroup PATH: ends every process in it and below, then removes the folders.
remove_cgroup() {
  tries=50
  while [ -d "$1" ] && [ $tries -gt 0 ]; do
    find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null | while read -r pid; do
      kill -s KILL "$pid" 2>/dev/null
    done
    find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
    [ -d "$1" ] || return 0
    sleep 0.1
    tries=$((tries - 1))
  done
  [ ! -d "$1" ] || say "could not remove the cgroup $1"
}

# run PROGRAM [ARGUMENT ...]
run() {
  timeout 30 "$@" >/dev/null || say "failed: $*"
}

# The stack of actions is the list of positional parameters, newest first.
set --
while IFS= read -r line; do
  case $line in
    "add "*) set -- "${line#add }" "$@" ;;
    "forget "*)
      id=${line#forget }
      left=$#
      while [ "$left" -gt 0 ]; do
        entry=$1
        shift
        case $entry in "$id "*) ;; *) set -- "$@" "$entry" ;; esac
        left=$((left - 1))
      done
      ;;
  esac
done
for entry; do eval "${entry#* }"; done
