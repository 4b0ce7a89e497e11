//! The actors: each owns a machine, drives it, and is supervised.

pub mod mesh;
pub mod peer;
