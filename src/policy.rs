//! Which orchestrator serves a request, and why.
//!
//! [`choose()`] is pure: a View, what is read live, the request, the time and one random word
//! go in; a [`Decision`] comes out that holds everything it looked at. [`decide()`] is its
//! arithmetic alone, over inputs a record keeps, so that a decision replays by itself.

pub mod ask;
pub mod beyond;
pub mod choose;
pub mod course;
pub mod decide;
pub mod entrance;
pub mod filter;
pub mod panic;
pub mod placing;
pub mod rank;
pub mod sample;

pub use ask::{Ask, Caller, Observed, PathKind, Rules, Shut};
pub use choose::{Decision, NoRoute, Seen, Verdict, choose};
pub use decide::{Pick, decide, terms_of};
pub use filter::Exclusion;
pub use panic::{Left, Panic};
pub use rank::{examine, in_order, rank};
pub use sample::to_measure;
