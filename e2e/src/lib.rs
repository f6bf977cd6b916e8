//! Real local clusters for tests, benches and the demo: control plane, KWOK, a real node, write counts.
//!
//! The rooms, from the ground up:
//!
//! | module | holds |
//! |---|---|
//! | [`process`] | child processes that never outlive this one |
//! | [`namespaces`] | private network and mount namespaces |
//! | [`guardian`] | the one helper that cleans up when this process is gone, however it went |
//! | [`state_folder`] | temporary folders that are removed in every case |
//! | [`binaries`] | where etcd, kube-apiserver and the others are found |
//! | [`pki`] | certificates, the service account key and kubeconfig files |
//! | [`relay`] | a loopback port into a private network namespace |
//! | [`local_cluster`] | the control plane, its clients and kubectl |
//! | [`kwok`] | nodes and pods that exist only in the API |
//! | [`manager`] | the real `springtide manager` as a child process |
//! | [`manager_image`] | the same as an image for a real node |
//! | [`command_line`] | the commands for people |
//! | [`helm`] | the real helm, and what it renders |
//! | [`write_count`] | requests by user agent, verb and resource, from the audit log |
//! | [`rights`] | what an account was granted, and what of it was used |
//! | [`polling`] | waiting for what is asked for again and again |
//! | [`oracle`] | independent witnesses of pods, jobs and leadership |
//! | [`fault_proxy`] | a proxy in front of the API server that injects faults |
//! | [`foreign_crds`] | CRDs of other projects |
//! | [`archive_sink`] | a server that takes the lines of finished jobs, or does not |
//! | [`crash`] | a manager that ends at each of its writes, and what becomes of its work |
//! | [`prometheus`] | a server that answers queries of metrics |
//! | [`held_seats`] | a tenant that keeps the seats of a priority level |
//! | [`batch`] | a cluster with a manager, and namespaces for tests of BatchJob |
//! | [`recovery`] | how a manager comes back after a fault of what it stands on |
//! | [`bench`] | the use of a process, and the reports of the benches |
//! | [`upgrade`] | a cluster with a manager, and namespaces for tests of InPlaceUpgrade |
//! | [`time_share`] | a cluster whose nodes have only so much, and namespaces for tests of TimeShareGroup |
//! | [`node`] | a real node: containerd, the kubelet, images, and the search for leftovers |
//!
//! Everything here is the real thing run locally: no API server, kubelet or
//! container runtime is imitated.

pub mod archive_sink;
pub mod batch;
pub mod bench;
pub mod binaries;
mod cargo;
pub mod command_line;
pub mod crash;
pub mod fault_proxy;
pub mod flow_control;
pub mod foreign_crds;
pub mod guardian;
pub mod held_seats;
pub mod helm;
pub mod kwok;
pub mod local_cluster;
pub mod manager;
pub mod manager_image;
pub mod namespaces;
pub mod node;
pub mod oracle;
pub mod pki;
pub mod polling;
pub mod process;
pub mod prometheus;
pub mod recovery;
pub mod relay;
pub mod rights;
pub mod state_folder;
pub mod time_share;
pub mod upgrade;
pub mod write_count;
