//! The directory's children: started, told, restarted, let go.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};

use crate::actors::directory::{Child, Msg, State};
use crate::actors::mesh::PeerNews;
use crate::actors::orchestrator::{Args, Msg as ChildMsg, OrchestratorActor};
use crate::clock;
use crate::directory::{Named, Output, Source};
use crate::geo::Point;
use crate::id::{OrchestratorId, RegionId};
use crate::orchestrator::Declared;
use crate::orchestrator::evidence::Told;
use crate::uri::ServiceUri;
use crate::view::row::Standing;

impl State {
    /// Carries out everything the machine has asked for.
    pub(super) async fn perform(
        &mut self,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Add(id, named) => self.add(myself, id, named).await?,
                Output::Remove(id) => self.remove(id),
                Output::Check(id) => self.tell(id, ChildMsg::Check),
            }
        }
        self.alarm_at = self.machine.next_timeout();
        Ok(())
    }

    async fn add(
        &mut self,
        myself: &ActorRef<Msg>,
        id: OrchestratorId,
        named: Named,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(child) = self.children.get_mut(&id) {
            child.named = named.clone();
            let stays = self.leaving.remove(&id) && !child.draining;
            if stays {
                self.tell(id, ChildMsg::SetDraining(false));
            }
            let declared = self.declared(&named);
            self.place(id, &declared);
            self.tell(id, ChildMsg::Declared(declared));
            return Ok(());
        }
        let actor = self.spawn(myself, id, &named).await?;
        // What the operator drained stays so, also when the directory starts anew.
        let view = self.args.shared.view.load();
        let standing = view.orchestrator(id).map(|(_slot, row)| row.standing);
        let draining = standing == Some(Standing::Draining);
        self.children.insert(id, Child { actor, named, draining });
        if draining {
            self.tell(id, ChildMsg::SetDraining(true));
        }
        Ok(())
    }

    async fn spawn(
        &mut self,
        myself: &ActorRef<Msg>,
        id: OrchestratorId,
        named: &Named,
    ) -> Result<ActorRef<ChildMsg>, ActorProcessingErr> {
        let view = self.args.shared.view.load();
        // The counters go on where they were: requests hold guards on them.
        let gauge = view.orchestrator(id).map(|(_slot, row)| Arc::clone(&row.gauge));
        let declared = self.declared(named);
        let gauge = gauge.unwrap_or_else(|| self.args.shared.board.gauge(id));
        self.place(id, &declared);
        let args = Args {
            params: self.args.named.load().orchestrator,
            check_timeout: self.args.check_timeout,
            declared,
            home: view.atlas.points[usize::from(view.atlas.home)],
            gauge,
            shared: Arc::clone(&self.args.shared),
            directory: myself.clone(),
        };
        let (actor, _end) =
            Actor::spawn_linked(None, OrchestratorActor, args, myself.get_cell()).await?;
        self.actors.insert(actor.get_id(), id);
        Ok(actor)
    }

    /// Lets go of one nobody names any more; with sessions there, when they have ended.
    fn remove(&mut self, id: OrchestratorId) {
        let view = self.args.shared.view.load();
        if view.orchestrator(id).is_some_and(|(_slot, row)| row.gauge.in_flight() > 0) {
            self.leaving.insert(id);
            self.tell(id, ChildMsg::SetDraining(true));
            return;
        }
        self.leaving.remove(&id);
        let Some(child) = self.children.remove(&id) else { return };
        self.actors.remove(&child.actor.get_id());
        child.actor.stop(None);
        self.args.shared.upstream.forget(id);
        self.args.shared.upstream.dialer().pins.forget(id);
        self.changes.insert(id, None);
    }

    /// Notes a child's death and arranges its return.
    pub(super) fn bury(
        &mut self,
        myself: &ActorRef<Msg>,
        actor: ActorId,
    ) -> Result<(), ActorProcessingErr> {
        // A child that was let go is not in the table any more.
        let Some(id) = self.actors.remove(&actor) else { return Ok(()) };
        let wait = self.restarts.note(clock::now(), "orchestrator").ok_or("too many restarts")?;
        myself.send_after(wait, move || Msg::Respawn(id));
        Ok(())
    }

    pub(super) async fn respawn(
        &mut self,
        myself: &ActorRef<Msg>,
        id: OrchestratorId,
    ) -> Result<(), ActorProcessingErr> {
        let Some((named, draining)) =
            self.children.get(&id).map(|child| (child.named.clone(), child.draining))
        else {
            return Ok(());
        };
        let actor = self.spawn(myself, id, &named).await?;
        self.children.insert(id, Child { actor, named, draining });
        if draining {
            self.tell(id, ChildMsg::SetDraining(true));
        }
        // A check that was under way died with it.
        self.machine.handle_checked(clock::now(), id, true);
        self.machine.handle_doubt(clock::now(), id);
        Ok(())
    }

    pub(super) fn tell(&self, id: OrchestratorId, msg: ChildMsg) {
        if let Some(child) = self.children.get(&id) {
            // A dead child is started again and asks for what it needs.
            drop(child.actor.cast(msg));
        }
    }

    pub(super) fn set_draining(&mut self, id: OrchestratorId, draining: bool) {
        if let Some(child) = self.children.get_mut(&id) {
            child.draining = draining;
        }
        self.tell(id, ChildMsg::SetDraining(draining));
    }

    pub(super) fn take_instances(
        &mut self,
        now: Instant,
        id: OrchestratorId,
        uris: Vec<ServiceUri>,
    ) {
        let Some(parent) = self.children.get(&id).map(|child| child.named.clone()) else { return };
        // Instances of instances are not followed: one level, as go-livepeer has it.
        if parent.operator.is_some() {
            return;
        }
        // Nobody declared where these are; residency above all is not inherited.
        let named = |uri: ServiceUri| Named {
            uri,
            region: None,
            point: None,
            country: None,
            operator: Some(parent.uri.clone()),
            weight_permille: parent.weight_permille,
        };
        let named = uris.into_iter().map(named).collect();
        self.machine.handle_source(now, Source::Instance(id), named);
    }

    /// Passes what peers see on to the children concerned.
    pub(super) fn pass_news(&mut self, now: Instant, news: &PeerNews) {
        let peers = self.args.shared.peers.load();
        for (id, sightings) in &news.changed {
            let told = sightings.iter().map(|sighting| {
                let peer = peers.row(sighting.node);
                Told {
                    node: sighting.node,
                    observation: sighting.observation,
                    at: news.taken_at.checked_sub(sighting.age).unwrap_or(now),
                    peer_rtt: peer.and_then(|it| it.rtt),
                    peer_point: peer.and_then(|it| self.point_of(it.region?)),
                }
            });
            self.tell(*id, ChildMsg::Told(told.collect()));
        }
    }

    /// Lets go of those whose last session has ended.
    pub(super) fn release(&mut self) {
        for id in self.leaving.clone() {
            self.remove(id);
        }
    }

    pub(super) fn point_of(&self, region: RegionId) -> Option<Point> {
        self.args.regions.get(region).map(|it| it.point)
    }

    /// Says where it is to whoever divides its places.
    fn place(&self, id: OrchestratorId, declared: &Declared) {
        let view = self.args.shared.view.load();
        self.args.shared.board.place(id, view.atlas.name(declared.region));
    }

    fn declared(&self, named: &Named) -> Declared {
        let view = self.args.shared.view.load();
        let region = named.region.and_then(|it| self.args.regions.get(it));
        let point = named.point.or_else(|| region.map(|it| it.point));
        let number = named.region.and_then(|it| self.args.regions.index_of(it));
        let nearest = point.as_ref().map(|point| view.atlas.nearest(point));
        let operator = named.operator.as_ref().unwrap_or(&named.uri);
        Declared {
            uri: named.uri.clone(),
            operator: operator.as_str().into(),
            point,
            region: number.or(nearest).unwrap_or(view.atlas.home),
            country: named.country.or_else(|| region.map(|it| it.country)),
            weight_permille: named.weight_permille.unwrap_or(1000),
        }
    }
}
