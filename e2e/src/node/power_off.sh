# Ends all containers of a node at once, and takes away what a machine forgets when
# it loses power: processes, control groups, links, mounts and what lies in /run.
# The node's own folder, which is below /run here, stands for its disk.
#
# Arguments: GROUP below which pods are, FOLDER of the node.
set -eu
group=$1 folder=$2

running() {
  for process in /proc/[0-9]*; do
    if [ "$(cat "$process/comm" 2>/dev/null)" = containerd-shim ] ||
      grep -q "$group/kubepods/" "$process/cgroup" 2>/dev/null; then
      echo "${process#/proc/}"
    fi
  done
}

# A shim may be about to start another one.
while pids=$(running) && [ -n "$pids" ]; do
  # One that has ended meanwhile is as good.
  kill -KILL $pids 2>/dev/null || true
  sleep 0.05
done

for path in $(awk '{ print $5 }' /proc/self/mountinfo | sort -r); do
  case $path in
    /run/containerd/* | /run/netns/* | "$folder"/kubelet/* | "$folder"/containerd/*)
      # What is below one that is gone is gone.
      umount -l "$path" 2>/dev/null || true
      ;;
  esac
done
rm -rf /run/containerd /run/netns /run/runc
ip link delete cni0 2>/dev/null || true
# The kernel frees a group shortly after its last process.
for try in 1 2 3 4 5 6 7 8 9 10; do
  find /sys/fs/cgroup -mindepth 2 -depth -type d -path "*$group/kubepods/*" -exec rmdir {} + 2>/dev/null && break
  sleep 0.1
done
echo off
