//! `portolan node`: what a node needs before it runs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::show;
use crate::ca::Token;
use crate::ca::name;
use crate::enroll::client;
use crate::net::tls;

/// What a node is told to do before it runs.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Make the node's private key; it never leaves this machine.
    Keygen {
        /// The file; one that is there already stays.
        #[arg(long, default_value = "node.key", value_name = "FILE")]
        out: PathBuf,
    },
    /// Join a mesh: have the CA name this node, and write what `[mesh]` needs.
    Enroll {
        /// Where `portolan ca serve` is reached.
        #[arg(long, value_name = "HOST:PORT", value_parser = super::ca::reached)]
        ca: String,
        /// The CA's fingerprint, as `portolan ca init` printed it.
        #[arg(long, value_parser = fingerprint)]
        ca_fp: String,
        /// The join token: a secret, good once.
        #[arg(long)]
        token: Token,
        /// Where to write.
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
        /// The private key; made where there is none. Taken from --dir.
        #[arg(long, default_value = "node.key", value_name = "FILE")]
        key: PathBuf,
    },
}

pub(super) async fn run(args: NodeArgs) -> Result<()> {
    match args.command {
        NodeCommand::Keygen { out } => {
            if out.exists() {
                bail!("{} is there already and stays as it is; give another --out", out.display());
            }
            tls::write(&out, &tls::generate_key()?, 0o600)?;
            show::line(&format!("the key is in {}; it stays on this machine", out.display()))
        }
        NodeCommand::Enroll { ca, ca_fp, token, dir, key } => {
            enroll(&ca, &ca_fp, &token, &dir, &key).await
        }
    }
}

async fn enroll(ca: &str, fingerprint: &str, token: &Token, dir: &Path, key: &Path) -> Result<()> {
    let key_file = dir.join(key);
    if !key_file.exists() {
        tls::write(&key_file, &tls::generate_key()?, 0o600)?;
    }
    let key_pem = tls::read(&key_file)?;
    let named = client::enroll(ca, fingerprint, token, &key_pem).await?;
    tls::write(&dir.join("ca.pem"), &named.standing.ca, 0o644)?;
    tls::write(&dir.join("revoked.pem"), &named.standing.revoked, 0o644)?;
    tls::write(&dir.join("operator.pub"), &named.operator, 0o644)?;
    tls::write(&dir.join("node.pem"), &named.certificate, 0o644)?;
    show::line(&format!(
        "# {} is a node of the mesh. Its file, in {}, needs this:\n[mesh]\n\
         listen = \"0.0.0.0:7935\"\ntrust_domain = \"{}\"\nca = \"ca.pem\"\n\
         cert = \"node.pem\"\nkey = \"{}\"\nrevoked = \"revoked.pem\"\n\
         operator = \"operator.pub\"\nenrolment = \"{ca}\"",
        token.node(),
        dir.display(),
        named.standing.trust_domain,
        key.display(),
    ))
}

fn fingerprint(text: &str) -> Result<String, name::BadName> {
    name::parse_fingerprint(text)
}
