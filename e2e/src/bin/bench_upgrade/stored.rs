//! What is stored of each part, and the options that it depends on.

use anyhow::Result;
use serde_json::{Value, json};
use springtide_e2e::bench::parts::{restored, stored};

use crate::report::Measured;
use crate::{Options, Part};

/// The options that the figures of a part depend on.
pub(crate) fn shape(part: Part, options: &Options) -> Value {
    let Options { pods, rest_minutes, many, requests, only: _, resume: _ } = options;
    match part {
        Part::Gated | Part::Plain | Part::Conflicts => json!({"pods": pods}),
        Part::Rest => json!({"pods": pods, "minutes": rest_minutes}),
        Part::Many => json!({"pods": many}),
        Part::Requests => json!({"requests": requests}),
        Part::Writes | Part::Downtime | Part::Names | Part::Crashes | Part::Random => json!({}),
    }
}

/// What was measured of a part; nothing where it was left out.
pub(crate) fn result(part: Part, measured: &Measured) -> Result<Option<Value>> {
    match part {
        Part::Gated => stored(measured.gated.as_ref()),
        Part::Plain => stored(measured.plain.as_ref()),
        Part::Conflicts => stored(measured.conflicts.as_ref()),
        Part::Rest => stored(measured.rest.as_ref()),
        Part::Many => stored(measured.many.as_ref()),
        Part::Writes => stored(measured.writes.as_ref()),
        Part::Downtime => stored(measured.downtimes.as_ref()),
        Part::Requests => stored(measured.requests.as_ref()),
        Part::Names => stored(measured.names.as_ref()),
        Part::Crashes => stored(measured.crashes.as_ref()),
        Part::Random => stored(measured.random.as_ref()),
    }
}

/// The way back of [`result`].
pub(crate) fn put(part: Part, measured: &mut Measured, result: Value) -> Result<()> {
    match part {
        Part::Gated => measured.gated = restored(result)?,
        Part::Plain => measured.plain = restored(result)?,
        Part::Conflicts => measured.conflicts = restored(result)?,
        Part::Rest => measured.rest = restored(result)?,
        Part::Many => measured.many = restored(result)?,
        Part::Writes => measured.writes = restored(result)?,
        Part::Downtime => measured.downtimes = restored(result)?,
        Part::Requests => measured.requests = restored(result)?,
        Part::Names => measured.names = restored(result)?,
        Part::Crashes => measured.crashes = restored(result)?,
        Part::Random => measured.random = restored(result)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Parser, ValueEnum};
    use springtide_e2e::bench::parts::name_of;

    #[test]
    fn each_part_has_a_file_and_its_own_options() {
        let shapes = |args: &[&str]| -> Vec<Value> {
            let options = Options::parse_from(["bench-upgrade"].iter().chain(args));
            Part::value_variants().iter().map(|part| shape(*part, &options)).collect()
        };
        let names: Vec<String> = Part::value_variants().iter().map(|part| name_of(*part)).collect();
        let method = shapes(&[]);
        let cases: [(&[&str], &[&str]); 5] = [
            (&["--pods", "1000"], &["gated", "plain", "conflicts", "rest"]),
            (&["--rest-minutes", "31"], &["rest"]),
            (&["--many", "20000"], &["many"]),
            (&["--requests", "1000001"], &["requests"]),
            (&["--resume", "--only", "writes"], &[]),
        ];
        for (args, parts) in cases {
            let shapes = shapes(args);
            let others = names.iter().zip(method.iter().zip(&shapes)).filter(|(_, (one, two))| one != two);
            assert_eq!(others.map(|(name, _)| &**name).collect::<Vec<_>>(), parts, "{args:?}");
        }
    }
}
