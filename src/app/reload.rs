//! Reading the configuration again while the node runs.
//!
//! All or nothing: a file that cannot be used, or that changes what takes a restart, leaves
//! everything as it is. What is swapped is read by requests that begin later; whatever is
//! under way keeps what it began with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use serde_json::{Value, json};

use crate::actors::directory::{self, Configured};
use crate::app::ground;
use crate::app::naming::Keeper;
use crate::clock;
use crate::config::{Change, Config};
use crate::edge::Gateway;
use crate::edge::admin::{Reload, Reloaded};
use crate::listen::tls::Certificate;
use crate::listen::{Listener, Speech};

/// What a reload changes, and what it was made from.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// The gateway whose knobs are swapped.
    pub(crate) gateway: Arc<Gateway>,
    /// What the directory is told.
    pub(crate) named: Arc<ArcSwap<Configured>>,
    /// The listeners, in the order of the configuration.
    pub(crate) speeches: Vec<Arc<Speech>>,
    /// The node's name in the mesh, on a node with peers.
    keeper: Option<Arc<Keeper>>,
    current: Mutex<(u64, Config)>,
}

impl Reloader {
    /// Begins with what the node was started from, as version 1.
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        named: Arc<ArcSwap<Configured>>,
        listeners: &[Listener],
        keeper: Option<Arc<Keeper>>,
        config: Config,
    ) -> Self {
        let speeches = listeners.iter().map(|it| Arc::clone(&it.speech)).collect();
        tell(1, &config, None);
        Self { gateway, named, speeches, keeper, current: Mutex::new((1, config)) }
    }

    /// Returns how long stopping may take, as last configured.
    pub(crate) fn drain(&self) -> Duration {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).1.drain
    }

    fn apply(&self, dry_run: bool) -> Result<Value, Value> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, before) = &*current;
        let said = |error: String| json!({ "error": error, "version": version });
        let later = Config::load(&before.source.path).map_err(|error| said(error.to_string()))?;
        let changes = before.source.changes(&later.source);
        let fixed: Vec<&Change> = changes.iter().filter(|it| !it.is_live()).collect();
        if !fixed.is_empty() {
            let keys: Vec<&str> = fixed.iter().map(|it| it.key.as_str()).collect();
            let keys = keys.join(", ");
            let error = format!("these take a restart: {keys}; nothing was changed");
            return Err(json!({ "error": error, "version": version, "changes": changes }));
        }
        // Certificates are read anew whether or not their names changed.
        let sources = later.listeners.iter().map(|it| it.tls.as_ref());
        let mut certificates = Vec::with_capacity(self.speeches.len());
        for (speech, source) in self.speeches.iter().zip(sources) {
            if let (Some(tls), Some(source)) = (&speech.tls, source.filter(|it| it.is_file())) {
                let read = Certificate::load(source).map_err(|error| said(error.to_string()))?;
                certificates.push((tls, read));
            }
        }
        // So are the files of the mesh, where they changed.
        let naming = self.keeper.as_ref().map(|it| it.read()).transpose();
        let naming = naming.map_err(|error| said(error.to_string()))?.flatten();
        // What is wrong with it only at the next start changes nothing for this process.
        let doubts = ground::survey(&later);
        let warnings: Vec<String> = doubts.iter().map(ToString::to_string).collect();
        let told = |version: u64, hash: &str| json!({ "version": version, "hash": hash, "changes": changes, "warnings": warnings });
        if dry_run {
            return Ok(told(*version, &later.source.hash));
        }
        if let Some((keeper, (naming, stamps))) = self.keeper.as_ref().zip(naming) {
            keeper.take(naming, stamps).map_err(|error| said(format!("{error:#}")))?;
        }
        for (tls, certificate) in certificates {
            tls.swap(certificate);
        }
        let shared = &self.gateway.shared;
        shared.upstream.dialer().guard.store(Arc::new(later.guard.clone()));
        shared.board.set_manners(later.policies.manners);
        self.gateway.params.store(Arc::new(super::edge_params(&later)));
        self.named.store(Arc::new(super::configured(&later)));
        if let Some(directory) = shared.refs.directory.load().as_ref() {
            // One that is being started again reads what it finds then.
            drop(directory.cast(directory::Msg::Reload));
        }
        let (version, hash) = (version + 1, later.source.hash.clone());
        tell(version, &later, Some(&before.source.hash));
        *current = (version, later);
        Ok(told(version, &hash))
    }
}

impl Reload for Reloader {
    fn reload(&self, dry_run: bool) -> Reloaded {
        let done = self.apply(dry_run);
        let outcome = match &done {
            Err(_) => "refused",
            Ok(_) if dry_run => "dry-run",
            Ok(_) => "applied",
        };
        counter!("portolan_config_reloads_total", "outcome" => outcome).increment(1);
        match &done {
            Ok(told) if !dry_run => tracing::info!(%told, "the configuration was read again"),
            Ok(_) => {}
            Err(told) => tracing::warn!(%told, "the configuration stays as it was"),
        }
        done
    }

    fn current(&self) -> Value {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "version": current.0, "hash": current.1.source.hash })
    }
}

fn tell(version: u64, config: &Config, before: Option<&str>) {
    gauge!("portolan_config_version").set(version as f64);
    gauge!("portolan_config_loaded_timestamp_seconds").set(clock::wall().as_secs_f64());
    if let Some(before) = before.filter(|it| *it != config.source.hash) {
        gauge!("portolan_config_info", "hash" => before.to_owned()).set(0.0);
    }
    gauge!("portolan_config_info", "hash" => config.source.hash.clone()).set(1.0);
}

/// Reads the configuration again whenever the process is told to (SIGHUP).
#[cfg(unix)]
pub(crate) async fn on_hangup(reloader: Arc<Reloader>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        let reloader = Arc::clone(&reloader);
        // What became of it is in the log, and in the metrics.
        drop(tokio::task::spawn_blocking(move || reloader.reload(false)).await);
    }
}
