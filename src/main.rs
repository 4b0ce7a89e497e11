//! Portolan: a geo-distributed gateway mesh for the Livepeer network.
fn main() {}
