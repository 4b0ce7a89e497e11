//! When a node hands over, and what becomes of it: one attempt at a time, each either ends with
//! another process in this one's place or leaves everything as it was.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use metrics::counter;
use tokio::sync::{mpsc, oneshot};

use crate::app::MESH;
use crate::app::handover::{New, Offer, Program, READY_MAX, Word, n_ready};
use crate::app::sockets::Sockets;
use crate::edge::Gateway;
use crate::edge::admin::HandOver;
use crate::net::Endpoint;

/// What a hand-over takes.
#[derive(Debug)]
pub(super) struct Succession {
    pub(super) sockets: Sockets,
    /// Wishes to hand over.
    pub(super) asked: mpsc::Receiver<HandOver>,
    /// Where they are told.
    pub(super) ask: mpsc::Sender<HandOver>,
    /// The key of rewritten URLs, where no file holds it.
    pub(super) drawn: Option<[u8; 32]>,
    /// `None` in a node that cannot hand over.
    pub(super) program: Option<Program>,
}

impl Succession {
    /// Takes wishes from here on; returns where they are told.
    pub(super) fn open(&mut self, program: Program) -> mpsc::Sender<HandOver> {
        self.program = Some(program);
        self.ask.clone()
    }

    /// Completes when another process has taken over.
    pub(super) async fn handed_over(&mut self, gateway: &Gateway, mesh: Option<&Endpoint>) {
        let Some(program) = self.program.clone() else {
            // Whoever asks is told at once.
            self.asked.close();
            return std::future::pending().await;
        };
        while let Some(told) = self.asked.recv().await {
            let done = self.hand_over(&program, gateway, mesh).await;
            let outcome = if done.is_ok() { "done" } else { "failed" };
            counter!("portolan_handovers_total", "outcome" => outcome).increment(1);
            match &done {
                Ok(process) => tracing::info!(process, "another process took over"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(%error, "not handed over; this process goes on");
                }
            }
            let is_done = done.is_ok();
            // Whoever asked may have left.
            drop(told.send(done.map_err(|error| format!("{error:#}"))));
            if is_done {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Lets go of the sockets.
    pub(super) fn release(&mut self) {
        self.asked.close();
        self.sockets.release();
    }

    async fn hand_over(
        &self,
        program: &Program,
        gateway: &Gateway,
        mesh: Option<&Endpoint>,
    ) -> Result<u32> {
        tracing::info!(program = %program.path.display(), "handing over");
        let held = self.sockets.held();
        let offer = Offer::new(held, n_ready(gateway), self.drawn);
        let mut new = New::start(program, &offer, held)?;
        let mut left = false;
        let ready = tokio::time::timeout(READY_MAX, until_ready(&mut new, mesh, &mut left)).await;
        let failed = match ready.context("the new process was not ready in time").flatten() {
            Ok(()) => return Ok(new.release()),
            Err(failed) => failed,
        };
        new.kill().await;
        if let Some(mesh) = mesh.filter(|_| left) {
            self.return_to_port(mesh).context("the mesh's port is lost; restart the node")?;
        }
        Err(failed)
    }

    fn return_to_port(&self, mesh: &Endpoint) -> Result<()> {
        let held = self.sockets.held().iter().find(|it| it.name.starts_with(MESH));
        let fd = held.context("its socket is not there")?.fd.try_clone()?;
        Ok(mesh.return_to(UdpSocket::from(fd))?)
    }
}

async fn until_ready(new: &mut New, mesh: Option<&Endpoint>, left: &mut bool) -> Result<()> {
    loop {
        match new.said().await? {
            Word::Ready => return Ok(()),
            Word::Mesh => {
                if let Some(mesh) = mesh {
                    *left = true;
                    mesh.leave()?;
                }
                new.tell_left().await?;
            }
        }
    }
}

/// Asks for a hand-over whenever the process is told to (SIGUSR2).
pub(super) async fn on_signal(ask: mpsc::Sender<HandOver>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut told) = signal(SignalKind::user_defined2()) else { return };
    while told.recv().await.is_some() {
        // What became of it is in the log, and in the metrics. One that is under way is enough.
        drop(ask.try_send(oneshot::channel().0));
    }
}
