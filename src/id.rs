//! Identifiers: parsed once at the border, compared and copied inside.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::uri::ServiceUri;

/// A short name kept inline, so that ids are `Copy`: at most [`Name::MAX`] bytes of
/// `A-Z a-z 0-9 - _ .`, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    bytes: [u8; Self::MAX],
    len: u8,
}

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {} characters of A-Z a-z 0-9 - _ .", Name::MAX)]
pub struct BadName;

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 31;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns the name's bytes, without a look at whether they are text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(legal) {
            return Err(BadName);
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Name);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// Returns its bytes, without a look at whether they are text.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Ok(Self(text.parse()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

named! {
    /// One process of this mesh, by the name its certificate carries.
    NodeId
}

named! {
    /// A named place from `regions/`, such as `FRA`.
    RegionId
}

/// One orchestrator instance: the first eight bytes of SHA-256 over its canonical service
/// URI, so that every node gives it the same id without asking anyone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrchestratorId(pub u64);

impl OrchestratorId {
    /// Returns the id of the orchestrator at `uri`.
    pub fn of(uri: &ServiceUri) -> Self {
        let digest = Sha256::digest(uri.as_str().as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// Why a text is not an [`OrchestratorId`] or a [`DecisionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 16 hexadecimal digits")]
pub struct BadHexId;

/// One decision of one node: a random start drawn at boot plus a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(pub u64);

macro_rules! hexadecimal {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadHexId;

            fn from_str(text: &str) -> Result<Self, BadHexId> {
                let digits = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
                let value = u64::from_str_radix(text, 16).ok().filter(|_| digits);
                value.map(Self).ok_or(BadHexId)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hexadecimal!(OrchestratorId);
hexadecimal!(DecisionId);

/// The id an orchestrator gave one reserved session; at most 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// The longest session id taken from an orchestrator, in bytes.
    pub const MAX: usize = 128;

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`SessionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id has 1 to {} visible ASCII characters", SessionId::MAX)]
pub struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let visible = text.bytes().all(|it| it.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX || !visible {
            return Err(BadSessionId);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_text_and_refuses_what_could_break_a_log() {
        assert_eq!("FRA".parse::<RegionId>().unwrap().to_string(), "FRA");
        for bad in ["", "a b", "a/b", "ä", "x\n", &"x".repeat(Name::MAX + 1)] {
            assert_eq!(bad.parse::<NodeId>(), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn an_orchestrator_id_depends_on_the_uri_alone_and_reads_back() {
        let uri: ServiceUri = "https://Orch.example:8935/".parse().unwrap();
        let same: ServiceUri = "orch.example:8935".parse().unwrap();
        assert_eq!(OrchestratorId::of(&uri), OrchestratorId::of(&same));
        let id = OrchestratorId::of(&uri);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("12".parse::<OrchestratorId>(), Err(BadHexId));
        assert_eq!("+123456789abcdef".parse::<OrchestratorId>(), Err(BadHexId));
    }
}
