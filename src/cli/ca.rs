//! `portolan ca`: the certificate authority of a mesh.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use tokio::net::TcpListener;

use super::show;
use crate::app::stop;
use crate::ca::Serial;
use crate::enroll::{self, Folder, Rotation, Service};
use crate::id::NodeId;
use crate::telemetry::{self, LogFormat};

/// What a CA is told to do.
#[derive(Debug, Args)]
pub(super) struct CaArgs {
    /// The CA's folder.
    #[arg(long, global = true, default_value = "ca", value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make a mesh's CA and its operator's key.
    Init {
        /// The mesh's name, such as mesh.example; it stands in every certificate.
        #[arg(long)]
        trust_domain: String,
    },
    /// Print the CA's fingerprint.
    Fingerprint,
    /// Make a join token, good for one node, once.
    Token {
        /// The node.
        #[arg(long)]
        node: NodeId,
        /// How long it is good, such as 90s, 10m or 2h.
        #[arg(long, default_value = "10m", value_parser = life)]
        ttl: Duration,
        /// Where the node reaches this CA's `serve`, to stand in the command that is printed.
        #[arg(long, value_name = "HOST:PORT", value_parser = reached)]
        ca: Option<String>,
    },
    /// Name nodes that come with tokens, and renew the certificates of nodes.
    Serve {
        /// The TCP address nodes come to.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Put certificates on the list of what is of use no longer.
    Revoke {
        /// All certificates of this node.
        #[arg(long, required_unless_present = "serial")]
        node: Option<NodeId>,
        /// One certificate, by its serial number in hexadecimal digits.
        #[arg(long, conflicts_with = "node")]
        serial: Option<Serial>,
    },
    /// Put another CA in this one's place, step by step; let the nodes hear of each.
    Rotate {
        /// The step.
        step: Step,
        /// With reissue: leave nodes behind that have not heard of the new CA; with drop: those
        /// without a certificate of it.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Step {
    /// Nodes trust a new CA beside the old one.
    Add,
    /// The new CA signs, and nodes renew their certificates.
    Reissue,
    /// Nodes trust the new CA alone.
    Drop,
}

pub(super) async fn run(args: CaArgs) -> Result<()> {
    let folder = Folder::new(&args.dir);
    let dir = args.dir.display();
    match args.command {
        CaCommand::Init { trust_domain } => {
            let fingerprint = folder.init(&trust_domain)?;
            show::line(&format!(
                "{fingerprint}\nthe CA of {trust_domain} lies in {dir}; whoever reads its keys \
                 can name nodes\n{dir}/operator.key commands the mesh: keep it where commands \
                 are given, not here"
            ))
        }
        CaCommand::Fingerprint => show::line(&folder.fingerprint()?),
        CaCommand::Token { node, ttl, ca } => {
            let token = folder.token(node, ttl)?.reveal();
            let fingerprint = folder.fingerprint()?;
            let at = ca.as_deref().unwrap_or("HOST:PORT");
            show::line(&format!(
                "portolan node enroll --ca {at} --ca-fp {fingerprint} --token {token}"
            ))?;
            if ca.is_none() {
                show::note(
                    "for HOST:PORT put where the node reaches `portolan ca serve`: this \
                     machine's name or address, and the port of --listen; --ca writes it there",
                );
            }
            Ok(())
        }
        CaCommand::Serve { listen } => {
            telemetry::logs(LogFormat::Text)?;
            let service = Service::new(folder)?;
            let bound = TcpListener::bind(listen).await;
            let listener = bound.with_context(|| {
                format!("cannot bind TCP {listen}; is another process using it?")
            })?;
            show::line(&format!("the CA names nodes on {}", listener.local_addr()?))?;
            enroll::serve(service, listener, stop::told(false)).await;
            Ok(())
        }
        CaCommand::Revoke { node: Some(node), .. } => {
            let n_revoked = folder.revoke_node(node)?;
            show::line(&format!("revoked certificates of {node}: {n_revoked}"))
        }
        CaCommand::Revoke { serial: Some(serial), .. } => {
            folder.revoke_serial(serial.clone())?;
            show::line(&format!("certificate {serial} is revoked"))
        }
        CaCommand::Revoke { .. } => bail!("give --node NAME or --serial NUMBER"),
        CaCommand::Rotate { step, force } => {
            let (step, next) = match step {
                Step::Add => (Rotation::Add, "`reissue`, when every node trusts both"),
                Step::Reissue => {
                    (Rotation::Reissue { force }, "`drop`, when every node has renewed")
                }
                Step::Drop => (Rotation::Drop { force }, "nothing: the rotation is complete"),
            };
            let signs = folder.rotate(step)?;
            show::line(&format!("{signs} signs; next comes {next}"))
        }
    }
}

/// Reads where the CA's service is reached.
pub(super) fn reached(text: &str) -> Result<String, String> {
    let said = "write the host and the port of `portolan ca serve`, such as ca.example:7934";
    let port = text.rsplit_once(':').filter(|(host, _port)| !host.is_empty());
    let is_port = port.is_some_and(|(_host, port)| port.parse::<u16>().is_ok());
    if is_port { Ok(text.to_owned()) } else { Err(said.to_owned()) }
}

/// Reads a duration of whole seconds, minutes or hours.
fn life(text: &str) -> Result<Duration, String> {
    let said = || "write a number and s, m or h, such as 10m".to_owned();
    let at = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(at).ok_or_else(said)?;
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(said()),
    };
    let number: u32 = number.parse().map_err(|_digits| said())?;
    Ok(Duration::from_secs(u64::from(number) * each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_by_a_host_and_a_port() {
        for good in ["ca.example:7934", "127.0.0.1:1", "[::1]:7934"] {
            assert_eq!(reached(good), Ok(good.to_owned()));
        }
        for bad in ["HOST:PORT", "ca.example", ":7934", "ca.example:77777", ""] {
            assert!(reached(bad).unwrap_err().contains("such as ca.example:7934"), "{bad}");
        }
    }
}
