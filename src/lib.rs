#![doc = include_str!("ARCHITECTURE.md")]

// 0  words
pub mod id;
pub mod text;
pub mod unit;
pub mod uri;

// 1  domain: pure functions over plain values
pub mod address;
pub mod geo;
pub mod policy;
pub mod region;
pub mod score;
pub mod view;

// 2  protocols: codecs, then sans-IO machines over them
pub mod ca;
pub mod forwarded;
pub mod health;
pub mod http1;
pub mod livepeer;
pub mod operator;
pub mod orders;
pub mod ticket;
pub mod trace;
pub mod wire;

pub mod directory;
pub mod legs;
pub mod mesh;
pub mod orchestrator;
pub mod retry;
pub mod session;
pub mod suspension;

// 3  I/O: moves bytes, decides nothing
pub mod clock;
pub mod enroll;
pub mod geoip;
pub mod journal;
pub mod listen;
pub mod net;
pub mod socket;
pub mod upstream;

// 4  actors: own a machine, drive it, are supervised
pub mod actors;

// 5  edges: where requests enter
pub mod devorch;
pub mod edge;

// 6  assembly
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod telemetry;
