//! The text a configuration was made from: what changed since, and what may change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A node's file as it stood when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The first 12 digits of its SHA-256.
    pub hash: String,
    /// Every value by its key, as TOML writes both.
    values: BTreeMap<String, String>,
}

/// One value that is another than before.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Its key, such as `limits.attempts` or `orchestrator[2].uri`.
    pub key: String,
    /// What it was; absent for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is; absent for one that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Source {
    /// Notes what stands in the file at `path`.
    pub(super) fn new(path: &Path, text: &str, table: &toml::Table) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let hash = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut values = BTreeMap::new();
        for (key, value) in table {
            flatten(key, value, &mut values);
        }
        Self { path: path.to_owned(), hash, values }
    }

    /// Returns every value that is another in `later`, by key.
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        let keys = self.values.keys().chain(later.values.keys());
        let keys: std::collections::BTreeSet<&String> = keys.collect();
        let change = |key: &String| {
            let (before, after) = (self.values.get(key), later.values.get(key));
            (before != after).then(|| Change {
                key: key.clone(),
                before: before.cloned(),
                after: after.cloned(),
            })
        };
        keys.into_iter().filter_map(change).collect()
    }
}

impl Change {
    /// Tells whether it takes effect without a restart.
    pub fn is_live(&self) -> bool {
        let plain = plain(&self.key);
        let is = |name: &str| plain == name || plain.starts_with(&format!("{name}."));
        LIVE.iter().any(|name| is(name))
    }
}

/// Returns a key without the numbers of its tables.
fn plain(key: &str) -> String {
    let mut inside = false;
    let outside = |c: &char| {
        inside = *c == '[' || (inside && *c != ']');
        !inside && *c != ']'
    };
    key.chars().filter(outside).collect()
}

fn flatten(key: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, into);
            }
        }
        toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{key}[{at}]"), item, into);
            }
        }
        // A list's query may hold a secret; the rest of its URL tells which it is.
        toml::Value::String(text) if plain(key) == "source.url" => {
            let shown = match text.split_once('?') {
                Some((url, query)) => {
                    let digest = Sha256::digest(query.as_bytes());
                    format!("\"{url}?…{:02x}{:02x}\"", digest[0], digest[1])
                }
                None => format!("\"{text}\""),
            };
            into.insert(key.to_owned(), shown);
        }
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_) => {
            into.insert(key.to_owned(), value.to_string());
        }
    }
}

/// What a reload changes; the rest is what a process is, and takes a restart.
const LIVE: [&str; 15] = [
    "node.public_url",
    "listener.cert",
    "listener.key",
    "orchestrator",
    "source",
    "location",
    "policy",
    "peer.url",
    "limits.replay_kib",
    "limits.replay_all_mib",
    "limits.attempts",
    "limits.drain_s",
    "upstream.allow_addresses",
    "upstream.allow_ports",
    "upstream.head_timeout_ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("node.toml"), text, &text.parse().unwrap())
    }

    #[test]
    fn what_changed_is_told_by_key_with_both_values() {
        let before = source("[limits]\nattempts = 4\n[[orchestrator]]\nuri = \"a\"\n");
        let after = source("[limits]\nattempts = 3\n[policy]\nnever = [\"x\"]\n");
        let told: Vec<String> = before
            .changes(&after)
            .iter()
            .map(|it| format!("{} {:?} {:?}", it.key, it.before, it.after))
            .collect();
        assert_eq!(
            told,
            [
                "limits.attempts Some(\"4\") Some(\"3\")",
                "orchestrator[0].uri Some(\"\\\"a\\\"\") None",
                "policy.never None Some(\"[\\\"x\\\"]\")",
            ]
        );
        assert_ne!(before.hash, after.hash);
        assert_eq!(before.changes(&before), []);
    }

    #[test]
    fn what_a_process_is_takes_a_restart() {
        let live = |key: &str| Change { key: key.to_owned(), before: None, after: None }.is_live();
        assert!(live("policy.panic") && live("orchestrator[3].uri") && live("listener[0].cert"));
        assert!(live("peer[1].url") && live("limits.attempts"));
        assert!(!live("node.name") && !live("listener[0].address") && !live("peer[1].node"));
        assert!(!live("limits.in_flight") && !live("mesh.ca") && !live("policyx"));
    }

    #[test]
    fn a_secret_in_the_url_of_a_list_is_not_shown() {
        let before = source("[[source]]\nurl = \"https://x/list?key=hunter2\"\n");
        let after = source("[[source]]\nurl = \"https://x/list?key=hunter3\"\n");
        let changes = before.changes(&after);
        assert_eq!(changes.len(), 1, "a changed secret is a change");
        assert!(!format!("{changes:?}").contains("hunter"));
    }
}
