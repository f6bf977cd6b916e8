//! What is stored of each part, and the options that it depends on.

use anyhow::Result;
use serde_json::{Value, json};
use springtide_e2e::bench::parts::{restored, stored};

use crate::report::Measured;
use crate::{Options, Part};

/// The options that the figures of a part depend on.
pub(crate) fn shape(part: Part, options: &Options) -> Value {
    let Options { units, rest_minutes, many, requests, fault_rounds, only: _, resume: _ } = options;
    match part {
        Part::Label | Part::Gate | Part::Preflight => json!({"units": units}),
        Part::Rest => json!({"units": units, "minutes": rest_minutes}),
        Part::Many => json!({"pods": many}),
        Part::Requests => json!({"requests": requests}),
        Part::Faults => json!({"rounds": fault_rounds}),
        Part::Writes | Part::Unit | Part::Starts => json!({}),
    }
}

/// What was measured of a part; nothing where it was left out.
pub(crate) fn result(part: Part, measured: &Measured) -> Result<Option<Value>> {
    match part {
        Part::Label => stored(measured.label.as_ref()),
        Part::Gate => stored(measured.gate.as_ref()),
        Part::Preflight => stored(measured.preflight.as_ref()),
        Part::Rest => stored(measured.rest.as_ref()),
        Part::Many => stored(measured.many.as_ref()),
        Part::Writes => stored(measured.writes.as_ref()),
        Part::Unit => stored(measured.unit.as_ref()),
        Part::Requests => stored(measured.requests.as_ref()),
        Part::Faults => stored(measured.faults.as_ref()),
        Part::Starts => stored(measured.starts.as_ref()),
    }
}

/// The way back of [`result`].
pub(crate) fn put(part: Part, measured: &mut Measured, result: Value) -> Result<()> {
    match part {
        Part::Label => measured.label = restored(result)?,
        Part::Gate => measured.gate = restored(result)?,
        Part::Preflight => measured.preflight = restored(result)?,
        Part::Rest => measured.rest = restored(result)?,
        Part::Many => measured.many = restored(result)?,
        Part::Writes => measured.writes = restored(result)?,
        Part::Unit => measured.unit = restored(result)?,
        Part::Requests => measured.requests = restored(result)?,
        Part::Faults => measured.faults = restored(result)?,
        Part::Starts => measured.starts = restored(result)?,
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
            let options = Options::parse_from(["bench-time-share"].iter().chain(args));
            Part::value_variants().iter().map(|part| shape(*part, &options)).collect()
        };
        let names: Vec<String> = Part::value_variants().iter().map(|part| name_of(*part)).collect();
        let method = shapes(&[]);
        let cases: [(&[&str], &[&str]); 6] = [
            (&["--units", "1000"], &["label", "gate", "preflight", "rest"]),
            (&["--rest-minutes", "31"], &["rest"]),
            (&["--many", "20000"], &["many"]),
            (&["--requests", "1000001"], &["requests"]),
            (&["--fault-rounds", "12"], &["faults"]),
            (&["--resume", "--only", "writes"], &[]),
        ];
        for (args, parts) in cases {
            let shapes = shapes(args);
            let others = names.iter().zip(method.iter().zip(&shapes)).filter(|(_, (one, two))| one != two);
            assert_eq!(others.map(|(name, _)| &**name).collect::<Vec<_>>(), parts, "{args:?}");
        }
    }
}
