//! What the benches share: the commit that is measured, the use of a process, what random tests count, and the form in
//! which they report.

pub mod checkout;
pub mod counted;
pub mod report;
pub mod usage;

use anyhow::Result;
use kube::Client;
use kube::core::Request;
use serde_json::Value;

use crate::write_count::WriteCount;

/// Creates an object.
///
/// # Errors
/// It is refused.
pub async fn post(client: &Client, collection: &str, object: &Value) -> Result<Value> {
    let request = Request::new(collection).create(&Default::default(), serde_json::to_vec(object)?)?;
    Ok(client.request(request).await?)
}

/// Of the writes that jobs took those that a budget is about, which is one without errors. Of the jobs' controller, whose
/// user agent begins like this, each counts, refused or not; of what other components are refused nothing is its doing: KWOK
/// at times patches a pod that is gone.
#[must_use]
pub fn of_budget(writes: &WriteCount, controller: &str) -> WriteCount {
    writes.filter(|request| request.user_agent.starts_with(controller) || request.code / 100 == 2)
}
