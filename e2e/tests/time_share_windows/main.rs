//! Windows of a TimeShareGroup, by the clock: a switch begins when its lead does, whoever leads the managers by then, and
//! batch work has the room of those that are off stage, and is gone when they need it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod batch_work;
mod starts;
