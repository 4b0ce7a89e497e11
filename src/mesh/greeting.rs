//! What two nodes tell each other first, and which version they settle on.

use crate::id::NodeId;
use crate::id::RegionId;
use crate::wire;
use crate::wire::v1::HelloAckV1;
use crate::wire::v1::HelloV1;

/// What a node says of itself when a link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Its name, which has to be that of its certificate.
    pub node: NodeId,
    /// The region it runs in.
    pub region: RegionId,
    /// Its boot epoch: greater after every restart.
    pub epoch: u64,
    /// A bit per optional ability; none is defined yet, unknown bits are ignored.
    pub features: u64,
}

/// Why a greeting is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGreeting {
    /// A node or region name breaks the rules of names.
    #[error("a greeting holds a name that is none")]
    Name,
    /// The two nodes speak no common version.
    #[error("the peer speaks versions {min} to {max}; this node speaks {}", wire::VERSION)]
    Version {
        /// The lowest the peer speaks.
        min: u16,
        /// The highest.
        max: u16,
    },
}

impl Greeting {
    /// Returns the dialer's first message.
    pub fn hello(&self) -> HelloV1 {
        HelloV1 {
            min: wire::VERSION,
            max: wire::VERSION,
            node: self.node.to_string(),
            region: self.region.to_string(),
            epoch: self.epoch,
            features: self.features,
        }
    }

    /// Returns the acceptor's first message.
    pub fn ack(&self) -> HelloAckV1 {
        HelloAckV1 {
            version: wire::VERSION,
            node: self.node.to_string(),
            region: self.region.to_string(),
            epoch: self.epoch,
            features: self.features,
        }
    }

    /// Reads the dialer's first message.
    pub fn from_hello(hello: &HelloV1) -> Result<Self, BadGreeting> {
        let &HelloV1 { min, max, epoch, features, .. } = hello;
        if !(min..=max).contains(&wire::VERSION) {
            return Err(BadGreeting::Version { min, max });
        }
        Self::read(&hello.node, &hello.region, epoch, features)
    }

    /// Reads the acceptor's first message.
    pub fn from_ack(ack: &HelloAckV1) -> Result<Self, BadGreeting> {
        if ack.version != wire::VERSION {
            return Err(BadGreeting::Version { min: ack.version, max: ack.version });
        }
        Self::read(&ack.node, &ack.region, ack.epoch, ack.features)
    }

    fn read(node: &str, region: &str, epoch: u64, features: u64) -> Result<Self, BadGreeting> {
        let node = node.parse().map_err(|_rules| BadGreeting::Name)?;
        let region = region.parse().map_err(|_rules| BadGreeting::Name)?;
        Ok(Self { node, region, epoch, features })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            node: "fra-1".parse().unwrap(),
            region: "FRA".parse().unwrap(),
            epoch: 3,
            features: 0,
        }
    }

    #[test]
    fn a_greeting_survives_the_wire() {
        assert_eq!(Greeting::from_hello(&greeting().hello()), Ok(greeting()));
        assert_eq!(Greeting::from_ack(&greeting().ack()), Ok(greeting()));
    }

    #[test]
    fn a_peer_without_a_common_version_is_told_so() {
        let newer = HelloV1 { min: 2, max: 9, ..greeting().hello() };
        let refused = BadGreeting::Version { min: 2, max: 9 };
        assert_eq!(Greeting::from_hello(&newer), Err(refused));
        let wider = HelloV1 { min: 0, max: 9, ..greeting().hello() };
        assert_eq!(Greeting::from_hello(&wider), Ok(greeting()));
    }

    #[test]
    fn a_name_that_could_break_a_log_is_refused() {
        let odd = HelloV1 { region: "FR\nA".to_owned(), ..greeting().hello() };
        assert_eq!(Greeting::from_hello(&odd), Err(BadGreeting::Name));
    }
}
