//! Join tokens: who holds one may have one node named, once.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::name::hex;
use crate::id::NodeId;

/// A token as the operator carries it to a node: a secret. The CA keeps its hash alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    node: NodeId,
    secret: [u8; 32],
}

/// What the CA knows a token by: SHA-256, in hexadecimal digits. The secret has 256 random
/// bits, so that nothing slower is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

/// Why a text is not a [`Token`]; it does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no join token; copy all of what `portolan ca token` printed")]
pub struct BadToken;

impl Token {
    /// Makes the token for `node` of 32 bytes that nobody can guess.
    pub fn new(node: NodeId, secret: [u8; 32]) -> Self {
        Self { node, secret }
    }

    /// Returns the node it names.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns what the CA keeps of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(hex(&Sha256::digest(self.reveal())))
    }

    /// Returns the token as text: a secret, for the operator alone.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}:{}:{}", self.node, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.split(':');
        let (Some(PREFIX), Some(node), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadToken);
        };
        if secret.len() != SECRET {
            return Err(BadToken);
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|it| it.try_into().ok());
        let node = node.parse().ok();
        Ok(Self { node: node.ok_or(BadToken)?, secret: secret.ok_or(BadToken)? })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret never reaches a log.
        f.debug_struct("Token").field("node", &self.node).finish_non_exhaustive()
    }
}

const PREFIX: &str = "portolan-join";

/// 32 bytes in base64 without padding.
const SECRET: usize = 43;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_and_says_nothing_of_its_secret(
            name in "[a-z0-9-]{1,31}",
            secret in any::<[u8; 32]>(),
        ) {
            let token = Token::new(name.parse().unwrap(), secret);
            let text = token.reveal();
            prop_assert_eq!(text.parse::<Token>(), Ok(token.clone()));
            let hidden = text.rsplit(':').next().unwrap();
            let shown = format!("{token:?} {:?}", token.hash());
            prop_assert!(!shown.contains(hidden));
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,120}") {
            prop_assert_eq!(text.parse::<Token>(), Err(BadToken));
            prop_assert_eq!(format!("{PREFIX}:a:{text}").parse::<Token>(), Err(BadToken));
        }
    }

    #[test]
    fn another_node_is_another_token() {
        let [a, b] = ["a", "b"].map(|it| Token::new(it.parse().unwrap(), [1; 32]));
        assert_ne!(a.hash(), b.hash());
        assert_eq!(format!("{}:x", a.reveal()).parse::<Token>(), Err(BadToken));
    }
}
