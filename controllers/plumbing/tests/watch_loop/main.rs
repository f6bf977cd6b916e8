//! The watch loop and its store against a scripted source, on paused time.

mod connection;
mod fallback;
mod listeners;
mod model;
mod relist;
mod script;
