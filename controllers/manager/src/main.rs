//! The springtide binary.

fn main() {}
