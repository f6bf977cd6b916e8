//! What writes meet on their way.

use proptest::prelude::*;

/// What becomes of one write. Questions meet nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan::tests) enum Fault {
    /// It passes.
    None,
    /// The server is never reached.
    NotSent,
    /// It is stored, and nobody knows.
    Unknown,
    /// Somebody else was first.
    Conflict,
}

impl Fault {
    /// Faults of so many writes at most, one in four of which meets something.
    pub(in crate::plan::tests) fn some(most: usize) -> impl Strategy<Value = Vec<Self>> {
        let one = prop_oneof![
            9 => Just(Self::None),
            1 => Just(Self::NotSent),
            1 => Just(Self::Unknown),
            1 => Just(Self::Conflict),
        ];
        proptest::collection::vec(one, 0..most)
    }
}
