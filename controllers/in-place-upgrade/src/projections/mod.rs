//! What this controller keeps of its own objects.

pub mod upgrade;
