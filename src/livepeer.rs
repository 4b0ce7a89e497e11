//! The Livepeer wire as pure codecs: bytes in, plain values out, no I/O.

pub mod bind;
pub mod capability;
pub mod error;
pub mod proto;
pub mod runner;
