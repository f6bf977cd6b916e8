//! Independent witnesses of what happens on a cluster.
//!
//! They watch on connections of their own, with kube's watcher instead of ours, and
//! judge by what every user can see. What they hold against the manager is kept as
//! text until a test asks ([`pods::Pods::violations`], [`jobs::Jobs::violations`]).
//!
//! | module | holds |
//! |---|---|
//! | [`feed`] | the watch itself, and waiting for what it shows |
//! | [`pods`] | every pod of every job: which ran, how each ended, never two at once |
//! | [`jobs`] | every status of every job: what may never go back |
//! | [`statuses`] | what no status of any kind may say |
//! | [`leadership`] | who held the lease, and who wrote, from the audit log |

pub mod feed;
pub mod jobs;
pub mod leadership;
pub mod pods;
pub mod statuses;
