//! Portolan: a geo-distributed gateway mesh for the Livepeer network.

// 0  words
pub mod id;
pub mod unit;
pub mod uri;

// 1  domain: pure functions over plain values
pub mod geo;

// 2  protocols: sans-IO machines and codecs
pub mod health;
pub mod mesh;
pub mod wire;

// 3  I/O: moves bytes, decides nothing
pub mod clock;
pub mod net;

// 4  actors: own a machine, drive it, are supervised
pub mod actors;

// 5  edges: where requests enter

// 6  assembly
