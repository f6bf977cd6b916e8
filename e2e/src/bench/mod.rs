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

/// Creates an object.
///
/// # Errors
/// It is refused.
pub async fn post(client: &Client, collection: &str, object: &Value) -> Result<Value> {
    let request = Request::new(collection).create(&Default::default(), serde_json::to_vec(object)?)?;
    Ok(client.request(request).await?)
}
