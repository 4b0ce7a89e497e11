//! The flags of `portolan orchestrator`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::devorch::Asking;
use crate::devorch::BadDelay;
use crate::devorch::BadFault;
use crate::devorch::Delays;
use crate::devorch::Faults;
use crate::devorch::Params;
use crate::devorch::delay;
use crate::id::RegionId;
use crate::uri::ServiceUri;

/// A development orchestrator: speaks the real wire, needs no GPU.
#[derive(Clone, Debug, clap::Args)]
pub struct OrchestratorArgs {
    /// Where to listen; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:8935", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// The service URI to announce [default: https:// and the listening address]. With http:
    /// everything is in plain text.
    #[arg(long, value_name = "URI")]
    pub service_uri: Option<ServiceUri>,

    /// The region to announce in the metadata of the runners, such as FRA.
    #[arg(long, value_name = "NAME")]
    pub region: Option<RegionId>,

    /// The name of the GPU to announce.
    #[arg(long, value_name = "NAME")]
    pub gpu: Option<String>,

    /// How many sessions each runner holds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub capacity: u32,

    /// Distance as a round trip, for everybody (20ms) or one network (127.1.0.0/16=80ms);
    /// may be repeated or separated by commas.
    #[arg(long, value_name = "DELAY")]
    pub delay: Vec<String>,

    /// What goes wrong, such as status=503:0.3 (probability) or refuse:2 (count); may be
    /// repeated or separated by commas. Only calls of runners fail, unless all: stands before.
    #[arg(long, value_name = "FAULT")]
    pub fail: Vec<String>,

    /// A price in wei, such as 1200:seconds or 1200:fixed; free without.
    #[arg(long, value_name = "PRICE")]
    pub price: Option<Asking>,

    /// How long demo/once works on a call.
    #[arg(long, default_value = "0ms", value_name = "TIME", value_parser = time)]
    pub work: Duration,

    /// How long a session may be idle before it ends.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = time)]
    pub idle: Duration,
}

/// Why flags are no [`Params`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadArgs {
    /// `--delay`.
    #[error("--delay: {0}")]
    Delay(#[from] BadDelay),
    /// `--fail`.
    #[error("--fail: {0}")]
    Fail(#[from] BadFault),
}

impl TryFrom<OrchestratorArgs> for Params {
    type Error = BadArgs;

    fn try_from(args: OrchestratorArgs) -> Result<Self, BadArgs> {
        let delays: Delays = args.delay.join(",").parse()?;
        let faults: Faults = args.fail.join(",").parse()?;
        Ok(Self {
            listen: args.listen,
            service: args.service_uri,
            region: args.region,
            gpu: args.gpu,
            capacity: args.capacity,
            idle: args.idle,
            work: args.work,
            delays,
            faults,
            asking: args.price,
        })
    }
}

fn time(text: &str) -> Result<Duration, String> {
    delay::duration(text).ok_or_else(|| "expected a time with a unit, such as 250ms or 2s".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        orchestrator: OrchestratorArgs,
    }

    fn read(flags: &[&str]) -> Result<Params, String> {
        let flags = std::iter::once("portolan").chain(flags.iter().copied());
        let cli = Cli::try_parse_from(flags).map_err(|it| it.to_string())?;
        Params::try_from(cli.orchestrator).map_err(|it| it.to_string())
    }

    #[test]
    fn flags_become_params() {
        let params =
            read(&["--delay", "5ms", "--delay", "127.1.0.0/16=80ms", "--price", "7:fixed"]);
        let params = params.unwrap();
        assert_eq!(params.delays.of([127, 1, 0, 1].into()), Duration::from_millis(80));
        assert_eq!(params.delays.of([127, 0, 0, 1].into()), Duration::from_millis(5));
        assert_eq!(params.asking, Some(Asking { wei: 7, fixed: true }));
        assert_eq!((params.capacity, params.idle), (4, Duration::from_secs(60)));
    }

    #[test]
    fn a_bad_flag_is_named_with_its_remedy() {
        assert!(read(&["--fail", "boom"]).unwrap_err().contains("--fail: \"boom\" is not a fault"));
        assert!(read(&["--delay", "5"]).unwrap_err().contains("250ms"));
        assert!(read(&["--work", "5"]).unwrap_err().contains("250ms"));
        assert!(read(&["--price", "free"]).unwrap_err().contains("1200:fixed"));
        assert!(read(&["--region", "a b"]).unwrap_err().contains("a name has"));
    }
}
