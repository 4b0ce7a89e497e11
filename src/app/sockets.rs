//! What a node holds that another process may take over: its sockets and its journal's file,
//! by name. Each is bound anew, or taken from the process before where that held one of the
//! same name.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use tokio::net::TcpListener;

/// What was taken over and is not in use yet, and what is in use.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inherited: Vec<Named>,
    held: Vec<Named>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Named {
    /// What it is for, and where the configuration puts it.
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

impl Sockets {
    /// Begins with what the process before held; nothing for a start from scratch.
    pub(super) fn new(inherited: Vec<Named>) -> Self {
        Self { inherited, held: Vec::new() }
    }

    /// Returns a listener at `at`, which stands so in the configuration. A port that was taken
    /// over has no moment in which nobody listens.
    pub(super) fn tcp(&mut self, role: &str, at: SocketAddr) -> io::Result<TcpListener> {
        let name = format!("{role} {at}");
        let tcp = match self.take(&name) {
            Some(fd) => fd.into(),
            None => std::net::TcpListener::bind(at)?,
        };
        tcp.set_nonblocking(true)?;
        self.keep(name, &tcp)?;
        TcpListener::from_std(tcp)
    }

    /// Returns a datagram socket at `at`, ready for the runtime.
    pub(super) fn udp(&mut self, role: &str, at: SocketAddr) -> io::Result<UdpSocket> {
        let name = format!("{role} {at}");
        let udp = match self.take(&name) {
            Some(fd) => fd.into(),
            None => UdpSocket::bind(at)?,
        };
        udp.set_nonblocking(true)?;
        self.keep(name, &udp)?;
        Ok(udp)
    }

    /// Returns the file at `path` as the process before holds it, or as `open` opens it.
    pub(super) fn file<E: From<io::Error>>(
        &mut self,
        role: &str,
        path: &Path,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<File, E> {
        let name = format!("{role} {}", path.display());
        let file = match self.take(&name) {
            Some(fd) => fd.into(),
            None => open()?,
        };
        self.keep(name, &file)?;
        Ok(file)
    }

    /// Returns all that is held.
    pub(super) fn held(&self) -> &[Named] {
        &self.held
    }

    /// Lets go of what is not used: what a new configuration does not name, and the second
    /// handles, with which a socket would outlive its user.
    pub(super) fn release(&mut self) {
        self.inherited.clear();
        self.held.clear();
    }

    fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.inherited.iter().position(|it| it.name == name)?;
        // Port 0 stands in a configuration more than once: in order.
        Some(self.inherited.remove(at).fd)
    }

    fn keep(&mut self, name: String, it: &impl AsFd) -> io::Result<()> {
        let fd = it.as_fd().try_clone_to_owned()?;
        self.held.push(Named { name, fd });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_the_same_name_is_taken_over_and_the_rest_is_bound() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut before = Sockets::default();
        let first = before.tcp("clients", any).unwrap().local_addr().unwrap();
        let second = before.tcp("clients", any).unwrap().local_addr().unwrap();
        let handed = before
            .held()
            .iter()
            .map(|it| Named { name: it.name.clone(), fd: it.fd.try_clone().unwrap() });
        let mut after = Sockets::new(handed.collect());
        assert_eq!(after.tcp("clients", any).unwrap().local_addr().unwrap(), first);
        assert_ne!(after.tcp("admin", any).unwrap().local_addr().unwrap(), second);
        assert_eq!(after.tcp("clients", any).unwrap().local_addr().unwrap(), second);
        let third = after.tcp("clients", any).unwrap().local_addr().unwrap();
        assert!(![first, second].contains(&third));
    }
}
