//! What a node listens on: bound in order, all of it before any of it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::Router;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::sockets::Sockets;
use crate::config::{Config, Listening};
use crate::edge::{Gateway, dns, doors};
use crate::listen::lanes::Lanes;
use crate::listen::names::Names;
use crate::listen::tls::{Certificate, Tls};
use crate::listen::{Listener, Params, Speech};

/// All that is bound.
pub(super) struct Bound {
    /// For clients, in the order of the configuration.
    pub(super) public: Vec<Listener>,
    admin: TcpListener,
    resolvers: Option<(dns::Params, UdpSocket, TcpListener)>,
}

/// Where all of it is.
pub(super) struct Addresses {
    /// For clients, in the order of the configuration; at least one.
    pub(super) public: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
    pub(super) dns: Option<SocketAddr>,
}

impl Bound {
    /// Binds everything, or nothing for long; what `sockets` took over is used as it is.
    pub(super) fn bind(config: &Config, sockets: &mut Sockets) -> Result<Self> {
        let public = bind_public(&config.listeners, sockets)?;
        let taken = || format!("listen.admin = {}: is another process using it?", config.admin);
        let admin = sockets.tcp("admin", config.admin).with_context(taken)?;
        let resolvers = match &config.dns {
            Some(dns) => {
                let (udp, tcp) = bind_dns(dns.listen, sockets)?;
                Some((dns.params.clone(), udp, tcp))
            }
            None => None,
        };
        Ok(Self { public, admin, resolvers })
    }

    /// Returns where all of it is.
    pub(super) fn addresses(&self) -> Result<Addresses> {
        let public = self.public.iter().map(|it| it.tcp.local_addr());
        Ok(Addresses {
            public: public.collect::<std::io::Result<_>>()?,
            admin: self.admin.local_addr()?,
            dns: self.resolvers.as_ref().map(|it| it.1.local_addr()).transpose()?,
        })
    }

    /// Serves until `stopped` says so.
    pub(super) fn serve(
        self,
        gateway: &Arc<Gateway>,
        routes: Router,
        (params, lanes): (Params, &Arc<Lanes>),
        stopped: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut served = JoinSet::new();
        served.spawn(doors::serve_operator(routes, self.admin, params, stopped.clone()));
        for listener in self.public {
            let (gateway, stopped) = (Arc::clone(gateway), stopped.clone());
            let lanes = Arc::clone(lanes);
            served.spawn(doors::serve_clients(gateway, listener, params, lanes, stopped));
        }
        if let Some((params, udp, tcp)) = self.resolvers {
            let (gateway, stopped) = (Arc::clone(gateway), stopped.clone());
            served.spawn(dns::serve(gateway, params, (udp, tcp), stopped));
        }
        served
    }
}

/// At least one is left to clients.
fn bind_public(listening: &[Listening], sockets: &mut Sockets) -> Result<Vec<Listener>> {
    ensure!(!listening.is_empty(), "listen: clients have nowhere to connect; set listen.public");
    let mut bound = Vec::with_capacity(listening.len());
    for it in listening {
        let taken = || format!("{} = {}: is another process using it?", it.key, it.address);
        let tcp = sockets.tcp("clients", it.address).with_context(taken)?;
        let certificate = it.tls.as_ref().map(Certificate::load).transpose()?;
        let tls = certificate.map(Tls::new).transpose()?;
        let names = Names::new(it.names.iter().cloned());
        let speech = Arc::new(Speech { tls, proxied: it.proxied, names });
        bound.push(Listener { name: "public", tcp, speech });
    }
    Ok(bound)
}

fn bind_dns(at: SocketAddr, sockets: &mut Sockets) -> Result<(UdpSocket, TcpListener)> {
    let remedy = "is another resolver using it, or does a port below 1024 take a right?";
    let taken = || format!("dns.listen = {at}: {remedy}");
    let tcp = sockets.tcp("dns over TCP", at).with_context(taken)?;
    // Port 0 takes any, the same one for both; of UDP ports most are free.
    let udp = sockets.udp("dns", tcp.local_addr()?).with_context(taken)?;
    Ok((UdpSocket::from_std(udp)?, tcp))
}
