//! The root: starts the rest in order and starts again what dies.
//!
//! Supervised by nobody: when it gives up, the process ends, and whoever runs processes
//! starts it again.

use std::sync::Arc;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::actors::directory::{self, DirectoryActor};
use crate::actors::geoip::GeoActor;
use crate::actors::mesh::{self, MeshActor};
use crate::actors::restart::Restarts;
use crate::actors::sessions::{self, SessionsActor};
use crate::actors::shared::Shared;
use crate::clock;

/// The actor.
#[derive(Debug)]
pub struct RootActor;

/// What it can be told.
#[derive(Clone, Copy, Debug)]
pub enum Msg {
    /// A child's moment of rest after its death is over.
    Respawn(Child),
}

/// The children, in the order they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// The address database's keeper.
    Geoip,
    /// The mesh; only on a node with peers.
    Mesh,
    /// The directory.
    Directory,
    /// The sessions.
    Sessions,
}

/// What the children are started with, each time anew.
#[derive(Clone, Debug)]
pub struct Args {
    /// What is shared.
    pub shared: Arc<Shared>,
    /// For the mesh, on a node with peers.
    pub mesh: Option<mesh::Args>,
    /// For the directory.
    pub directory: directory::Args,
    /// For the sessions.
    pub sessions: sessions::Args,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    args: Args,
    children: Vec<(ActorId, Child)>,
    restarts: Restarts,
}

impl Actor for RootActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State { args, children: Vec::new(), restarts: Restarts::default() };
        for child in [Child::Geoip, Child::Mesh, Child::Directory, Child::Sessions] {
            state.spawn(&myself, child).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Respawn(child): Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.spawn(&myself, child).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let died = match event {
            SupervisionEvent::ActorFailed(actor, _)
            | SupervisionEvent::ActorTerminated(actor, ..) => actor,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        let Some(at) = state.children.iter().position(|(id, _)| *id == died.get_id()) else {
            return Ok(());
        };
        let (_id, child) = state.children.remove(at);
        let wait = state.restarts.note(clock::now(), child.name()).ok_or("too many restarts")?;
        myself.send_after(wait, move || Msg::Respawn(child));
        Ok(())
    }
}

impl Child {
    fn name(self) -> &'static str {
        match self {
            Self::Geoip => "geoip",
            Self::Mesh => "mesh",
            Self::Directory => "directory",
            Self::Sessions => "sessions",
        }
    }
}

impl State {
    async fn spawn(
        &mut self,
        myself: &ActorRef<Msg>,
        child: Child,
    ) -> Result<(), ActorProcessingErr> {
        let (args, above) = (self.args.clone(), myself.get_cell());
        let id = match child {
            Child::Geoip => {
                Actor::spawn_linked(None, GeoActor, args.shared, above).await?.0.get_id()
            }
            Child::Mesh => {
                let Some(mesh) = args.mesh else { return Ok(()) };
                let (actor, _end) = Actor::spawn_linked(None, MeshActor, mesh, above).await?;
                let id = actor.get_id();
                args.shared.refs.mesh.store(Some(Arc::new(actor)));
                id
            }
            Child::Directory => {
                Actor::spawn_linked(None, DirectoryActor, args.directory, above).await?.0.get_id()
            }
            Child::Sessions => {
                Actor::spawn_linked(None, SessionsActor, args.sessions, above).await?.0.get_id()
            }
        };
        self.children.push((id, child));
        Ok(())
    }
}
