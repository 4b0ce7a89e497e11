//! The one integration binary: real sockets on loopback, nothing else of the world.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod apps;
mod blame;
mod chaos;
mod check;
mod demo;
mod devorch;
mod discover;
mod dns;
mod doctor;
mod drain;
mod enroll;
mod failover;
mod forward;
mod guard;
mod handover;
mod hostile;
mod inputs;
mod journal;
mod listen;
mod mesh;
mod naming;
mod node;
mod observe;
mod orders;
mod paid;
mod policies;
mod reload;
mod restart;
mod scale;
mod sessions;
mod sharing;
mod steer;
mod steering;
mod tidy;
mod wall;
