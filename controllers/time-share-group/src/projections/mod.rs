//! What this controller keeps of objects that no other one reads as it does.

pub mod group;
pub mod horizontal_pod_autoscaler;
pub mod http_route;
pub mod resource_quota;
