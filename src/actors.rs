//! The actors: each owns one machine, drives it, and is supervised.
//!
//! ```text
//! root
//! ├─ geoip                    the address database: reload, age
//! ├─ mesh                     health records of all nodes; one child per peer
//! │   └─ peer ×P
//! ├─ directory                who the orchestrators are; publishes the View
//! │   └─ orchestrator ×M      one orchestrator: checks, outcomes, its row
//! └─ sessions                 one child per long-lived session
//!     └─ session ×S
//! ```
//!
//! A parent that dies takes its children with it and starts them again. What a death loses
//! is in [`RULES`]; requests lose nothing, for none waits on an actor: they read the last
//! View, and write counters that outlive the actor.

pub mod directory;
pub mod geoip;
pub mod mesh;
pub mod orchestrator;
pub mod peer;
pub mod restart;
pub mod root;
pub mod session;
pub mod sessions;
pub mod shared;
pub mod sources;

pub use restart::{Restarts, Rule};
pub use shared::Shared;

use std::time::Duration;

/// How each kind of actor comes back, and what its death loses.
pub const RULES: &[Rule] = &[
    Rule { actor: "geoip", after: Duration::ZERO, loses: "nothing: the database stays loaded" },
    Rule { actor: "mesh", after: Duration::from_millis(50), loses: "peers' records, told again" },
    Rule { actor: "peer", after: Duration::from_millis(200), loses: "its link, dialed again" },
    Rule { actor: "directory", after: Duration::ZERO, loses: "learned service times" },
    Rule { actor: "orchestrator", after: Duration::ZERO, loses: "what it learned of one" },
    Rule { actor: "sessions", after: Duration::ZERO, loses: "nothing: the table stays" },
    Rule { actor: "session", after: Duration::ZERO, loses: "nothing: its row stays" },
];
