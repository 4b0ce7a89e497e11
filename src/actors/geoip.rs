//! The keeper of the address database: reloads it when its files change, tells its age.
//!
//! Owns nothing but a clock; the database lies in [`Shared`], so its death loses nothing.
//! Supervised by `root`, which restarts it at once.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::actors::shared::Shared;
use crate::clock;
use crate::geoip::{Freshness, GeoError, Reload};

/// The actor.
#[derive(Debug)]
pub struct GeoActor;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Look whether the files changed.
    Look,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    shared: Arc<Shared>,
    _ticking: JoinSet<()>,
}

impl Actor for GeoActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        shared.refs.geoip.store(Some(Arc::new(myself.clone())));
        let mut ticking = JoinSet::new();
        ticking.spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                ticks.tick().await;
                if myself.cast(Msg::Look).is_err() {
                    return;
                }
            }
        });
        Ok(State { shared, _ticking: ticking })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Msg::Look = msg;
        let shared = Arc::clone(&state.shared);
        // Reading files blocks; requests go on with the database that is loaded.
        let reloaded = tokio::task::spawn_blocking(move || reload_if_changed(&shared)).await?;
        match reloaded {
            Some(Ok(())) => {
                counter!("portolan_geoip_reloads_total", "outcome" => "loaded").increment(1);
                tracing::info!("the address database was reloaded");
            }
            Some(Err(error)) => {
                counter!("portolan_geoip_reloads_total", "outcome" => "kept").increment(1);
                tracing::warn!(%error, "the address database stays as it is");
            }
            None => {}
        }
        state.tell_age();
        Ok(())
    }
}

impl State {
    fn tell_age(&self) {
        let wall = clock::wall();
        if let Some(age) = self.shared.geo.current().age(wall) {
            gauge!("portolan_geoip_age_seconds").set(age.as_secs_f64());
        }
        let embedded = self.shared.geo.current().editions().all(|it| it.source == "embedded");
        match self.shared.geo.tell_time(wall) {
            // The embedded database knows countries only, which change slowly.
            Some(Freshness::Stale) if !embedded => {
                tracing::warn!(
                    "the address database is over 90 days old; cities count as countries"
                );
            }
            Some(Freshness::Stale | Freshness::Ageing | Freshness::Fresh) | None => {}
        }
    }
}

fn reload_if_changed(shared: &Shared) -> Option<Result<(), GeoError>> {
    shared.geo.changed().then(|| shared.geo.reload(clock::wall(), Reload::NotOlder))
}

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
