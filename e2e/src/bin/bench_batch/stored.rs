//! What is stored of each part, and the options that it depends on.

use anyhow::Result;
use serde_json::{Value, json};
use springtide_e2e::bench::parts::{restored, stored};

use crate::report::Measured;
use crate::{Options, Part};

/// The options that the figures of a part depend on.
pub(crate) fn shape(part: Part, options: &Options) -> Value {
    let Options { nodes, comparison, latency_seconds, load_minutes, flood_jobs, .. } = options;
    match part {
        Part::Throughput => json!({"nodes": nodes, "comparison": comparison}),
        Part::Latency => json!({"nodes": nodes, "seconds": latency_seconds}),
        Part::Load => json!({"nodes": nodes, "minutes": load_minutes}),
        Part::Flood => json!({"nodes": nodes, "jobs": flood_jobs}),
        Part::Pending | Part::Drain | Part::Follows | Part::Queue => json!({"nodes": nodes}),
        Part::Containers | Part::Online | Part::Writes | Part::Decision | Part::Walk => json!({}),
    }
}

/// What was measured of a part; nothing where it was left out.
pub(crate) fn result(part: Part, measured: &Measured) -> Result<Option<Value>> {
    match part {
        Part::Throughput => stored(measured.comparison.as_ref()),
        Part::Latency => stored(measured.latency.as_ref()),
        Part::Pending => stored(measured.pending.as_ref()),
        Part::Load => stored(measured.load.as_ref()),
        Part::Drain => stored(measured.drain.as_ref()),
        Part::Follows => stored(measured.follows.as_ref()),
        Part::Queue => stored(measured.queue.as_ref()),
        Part::Flood => stored(measured.flood.as_ref()),
        Part::Containers => stored(measured.containers.as_ref()),
        Part::Online => stored(measured.online.as_ref()),
        Part::Writes => stored(measured.writes.as_ref()),
        Part::Decision => stored(measured.decision.as_ref()),
        Part::Walk => stored(measured.walk.as_ref()),
    }
}

/// The way back of [`result`].
pub(crate) fn put(part: Part, measured: &mut Measured, result: Value) -> Result<()> {
    match part {
        Part::Throughput => measured.comparison = restored(result)?,
        Part::Latency => measured.latency = restored(result)?,
        Part::Pending => measured.pending = restored(result)?,
        Part::Load => measured.load = restored(result)?,
        Part::Drain => measured.drain = restored(result)?,
        Part::Follows => measured.follows = restored(result)?,
        Part::Queue => measured.queue = restored(result)?,
        Part::Flood => measured.flood = restored(result)?,
        Part::Containers => measured.containers = restored(result)?,
        Part::Online => measured.online = restored(result)?,
        Part::Writes => measured.writes = restored(result)?,
        Part::Decision => measured.decision = restored(result)?,
        Part::Walk => measured.walk = restored(result)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Parser, ValueEnum};
    use springtide_e2e::bench::parts::name_of;

    fn options(args: &[&str]) -> Options {
        Options::parse_from(["bench-batch"].iter().chain(args))
    }

    #[test]
    fn each_part_has_a_file_and_its_own_options() {
        let shapes = |args: &[&str]| -> Vec<Value> {
            Part::value_variants().iter().map(|part| shape(*part, &options(args))).collect()
        };
        let names: Vec<String> = Part::value_variants().iter().map(|part| name_of(*part)).collect();
        let method = shapes(&[]);
        let cases: [(&[&str], &[&str]); 7] = [
            (&["--workers", "16"], &["throughput"]),
            (&["--jobs", "20000"], &["throughput"]),
            (&["--latency-seconds", "61"], &["latency"]),
            (&["--load-minutes", "11"], &["load"]),
            (&["--flood-jobs", "60000"], &["flood"]),
            (
                &["--nodes", "100"],
                &["throughput", "latency", "pending", "load", "drain", "follows", "queue", "flood"],
            ),
            (&["--resume"], &[]),
        ];
        for (args, parts) in cases {
            let shapes = shapes(args);
            let others = names.iter().zip(method.iter().zip(&shapes)).filter(|(_, (one, two))| one != two);
            assert_eq!(others.map(|(name, _)| &**name).collect::<Vec<_>>(), parts, "{args:?}");
        }
    }
}
