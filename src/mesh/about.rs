//! What nodes say of themselves to those who send them clients.

use std::sync::Arc;

use super::Fault;
use super::Mesh;
use crate::id::NodeId;
use crate::uri::ServiceUri;
use crate::wire::Message;
use crate::wire::v1::AboutV1;

/// What one node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// How clients reach it, without a trailing slash; `None` where it does not know. At most
    /// [`ServiceUri::MAX`] bytes.
    pub url: Option<Arc<str>>,
    /// The version of its software, at most [`VERSION_MAX`] bytes.
    pub version: Arc<str>,
}

impl About {
    /// Reads what a peer said; `None` for what is no such thing.
    fn read(said: &AboutV1) -> Option<Self> {
        let plain =
            |text: &str, max| text.len() <= max && text.bytes().all(|it| it.is_ascii_graphic());
        let url = said.url.as_deref();
        let leads = |it: &str| it.contains("://") && it.parse::<ServiceUri>().is_ok();
        let sound = plain(&said.version, VERSION_MAX)
            && url.is_none_or(|it| plain(it, ServiceUri::MAX) && leads(it));
        sound.then(|| Self { url: url.map(Arc::from), version: said.version.as_str().into() })
    }

    fn say(&self) -> AboutV1 {
        AboutV1 { url: self.url.as_deref().map(str::to_owned), version: self.version.to_string() }
    }
}

impl Mesh {
    /// Tells a peer who just came what this node says of itself, if it says anything.
    pub(super) fn introduce(&mut self, node: NodeId) {
        if self.params.about != About::default() {
            let about = self.params.about.say();
            self.send(node, Message::About(about));
        }
    }

    /// Takes what a peer says of itself, and of nobody else: it is the one of the link.
    pub(super) fn take_about(&mut self, now: std::time::Instant, node: NodeId, said: &AboutV1) {
        let Some(about) = About::read(said) else {
            return self.quarantine(now, node, Fault::Value);
        };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.about = Some(Arc::new(about));
        }
    }
}

/// The longest version.
pub const VERSION_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: Option<&str>, version: &str) -> Option<About> {
        About::read(&AboutV1 { url: url.map(str::to_owned), version: version.to_owned() })
    }

    #[test]
    fn what_clients_could_not_be_sent_to_is_refused() {
        for url in ["https://fra.example", "http://10.0.0.1:8935", "http://[2001:db8::1]:80"] {
            let about = read(Some(url), "0.1.0").unwrap();
            assert_eq!(About::read(&about.say()), Some(about), "{url}");
        }
        assert!(read(None, "").is_some());
        let long = format!("https://{}", "a".repeat(ServiceUri::MAX));
        for url in ["", "https://", "ftp://a", "a", "https://u@a", "https://a b", &long] {
            assert_eq!(read(Some(url), "0.1.0"), None, "{url}");
        }
        assert_eq!(read(None, &"1".repeat(VERSION_MAX + 1)), None);
        assert_eq!(read(None, "1\n2"), None);
    }
}
