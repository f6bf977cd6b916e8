//! The controller in a world that goes on beside it: pods start, end, fail and vanish, watches lag, the
//! process dies between any two writes. What must hold, holds at every moment, and every job ends.

mod chaos;
mod cluster;
mod lives;
mod world;
