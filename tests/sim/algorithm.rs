//! The ways of choosing that are held against each other.

use super::baseline::{GoLivepeer, Nearest, PeakEwma};
use super::gateway::Gateway;
use super::node::Node;
use super::world::World;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Portolan,
    Nearest,
    GoLivepeer,
    GoLivepeerLive,
    PeakEwma,
    PeakEwmaBiased,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Served,
    /// It said it was full.
    Full,
    /// It answered with an error.
    Failed,
    /// The connection was refused or reset.
    Broken,
    /// Nothing came in time.
    Silent,
}

/// An attempt that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) end: End,
    /// From its beginning, in microseconds.
    pub(crate) took: u64,
    /// From the moment it was sent over an open connection.
    pub(crate) waited: u64,
}

impl Algorithm {
    /// All of them, Portolan first.
    pub(crate) const ALL: [Self; 6] = [
        Self::Portolan,
        Self::Nearest,
        Self::GoLivepeer,
        Self::GoLivepeerLive,
        Self::PeakEwma,
        Self::PeakEwmaBiased,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portolan => "portolan",
            Self::Nearest => "nearest",
            Self::GoLivepeer => "go-livepeer",
            Self::GoLivepeerLive => "go-livepeer live",
            Self::PeakEwma => "p2c peak-ewma",
            Self::PeakEwmaBiased => "p2c peak-ewma, biased",
        }
    }

    /// Starts a gateway of this kind.
    pub(crate) fn gateway(self, world: &World, number: usize) -> Box<dyn Gateway> {
        match self {
            Self::Portolan => Box::new(Node::new(world, number)),
            Self::Nearest => Box::new(Nearest::new(world, number)),
            Self::GoLivepeer => Box::new(GoLivepeer::new(world, number, false)),
            Self::GoLivepeerLive => Box::new(GoLivepeer::new(world, number, true)),
            Self::PeakEwma => Box::new(PeakEwma::new(world, number, false)),
            Self::PeakEwmaBiased => Box::new(PeakEwma::new(world, number, true)),
        }
    }
}
