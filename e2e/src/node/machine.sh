# Turns new network, mount and PID namespaces into a small machine of its own,
# then stays as its first process.
#
# Arguments: FOLDER for everything that is written, ADDRESS of the node with its
# prefix length, INIT and its arguments (the program to become).
set -eu
folder=$1 address=$2
shift 2

# Everything that the node writes goes into FOLDER, also what has its path fixed
# in the code of containerd, runc, libcni or the kubelet. /run comes first: paths
# below it are short, as sockets need, and the same for every node.
mkdir -p "$folder/run/node" "$folder/upper" "$folder/work" "$folder/tunables"
for path in /var/lib /var/log; do
  mkdir -p "$folder/upper$path" "$folder/work$path"
  mount -t overlay overlay -o "lowerdir=$path,upperdir=$folder/upper$path,workdir=$folder/work$path" "$path"
done
mount --bind "$folder/run" /run

# Process numbers of the new namespace only.
mount -t proc proc /proc

# The kubelet sets these for the whole kernel; let it set a copy.
for tunable in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy=$folder/tunables/$(echo "$tunable" | tr / -)
  cat "/proc/sys/$tunable" > "$copy"
  mount --bind "$copy" "/proc/sys/$tunable"
done

# A veth pair, as not every kernel has links of type dummy. Without a default
# route the kubelet finds no address of the node.
ip link set lo up
ip link add node0 type veth peer name node0p
ip addr add "$address" dev node0
ip link set node0 up
ip link set node0p up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward

exec "$@"
