//! The one integration binary: real sockets on loopback, nothing else of the world.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod apps;
mod demo;
mod devorch;
mod node;
mod steering;
mod tidy;
