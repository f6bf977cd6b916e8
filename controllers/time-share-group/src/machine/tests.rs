mod aborts;
mod going_back;
mod nudging;
mod rig;
mod room;
mod rows;
mod standstill;
mod world;
