//! The demo's own CA: a folder, its service in this process, and a token for each node.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::demo::plan::Plan;
use crate::enroll::{Folder, Service, client, serve};
use crate::net::tls;

/// The CA while the demo runs; nodes renew at it.
#[derive(Debug)]
pub(super) struct Names {
    _tasks: JoinSet<()>,
}

impl Names {
    /// Makes a CA, has it serve at `listener`, and lets every node join as one of a mesh of
    /// strangers would: with a token that is good once.
    pub(super) async fn give(plan: &Plan, listener: TcpListener) -> Result<Self> {
        let at = listener.local_addr()?.to_string();
        let folder = Folder::new(&plan.folder().join("ca"));
        let fingerprint = folder.init(Plan::TRUST_DOMAIN)?;
        let mut tasks = JoinSet::new();
        let service = Service::new(Folder::new(&plan.folder().join("ca")))?;
        tasks.spawn(serve(service, listener, std::future::pending()));
        for node in &plan.nodes {
            let token = folder.token(node.name.parse()?, TOKEN_FOR)?;
            let key = tls::generate_key()?;
            let named = client::enroll(&at, &fingerprint, &token, &key).await?;
            let put = |what: &str, text: &str, mode: u32| {
                let path: &Path = &plan.folder().join(format!("{}-{what}", node.name));
                tls::write(path, text, mode)
            };
            put("node.key", &key, 0o600)?;
            put("node.pem", &named.certificate, 0o644)?;
            put("ca.pem", &named.standing.ca, 0o644)?;
            put("revoked.pem", &named.standing.revoked, 0o644)?;
            put("operator.pub", &named.operator, 0o644)?;
        }
        Ok(Self { _tasks: tasks })
    }
}

/// A demo starts within this, or not at all.
const TOKEN_FOR: Duration = Duration::from_secs(60);
