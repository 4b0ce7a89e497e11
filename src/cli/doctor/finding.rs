//! What is well with a node and what is not, each with its remedy. Pure: facts in, findings out.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::app::ground::{Doubt, Weight};
use crate::config::Complaint;
use crate::geoip::{Freshness, GeoIp};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// As it should be.
    Well,
    /// It works, and will not for ever or not for all.
    Soon,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was found.
    pub(super) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// What an address database knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Cities, and countries.
    Cities,
    /// Countries alone.
    Countries,
    /// The countries that ship with the program.
    Shipped,
}

/// How a port stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// It could be bound.
    Free,
    /// The node itself holds it.
    Held,
    /// It could not, and the node does not run.
    Refused(String),
}

impl Holds {
    /// Returns what a set knows.
    pub(super) fn of(set: &GeoIp) -> Self {
        if set.editions().any(|it| it.has_cities) {
            return Self::Cities;
        }
        let shipped = set.editions().all(|it| it.source == "embedded");
        if shipped { Self::Shipped } else { Self::Countries }
    }
}

impl Finding {
    /// Says a doubt of a start.
    pub(super) fn of(doubt: &Doubt) -> Self {
        let Complaint { key, value, problem, remedy } = &doubt.said;
        let found = format!("{key} = {value}: {problem}");
        match doubt.weight {
            Weight::Odd => Self::soon(doubt.topic, found, remedy),
            Weight::Broken | Weight::Refused => Self::bad(doubt.topic, found, remedy),
        }
    }

    pub(super) fn well(check: &'static str, found: String) -> Self {
        Self { check, level: Level::Well, found, remedy: None }
    }

    pub(super) fn soon(check: &'static str, found: String, remedy: &str) -> Self {
        Self { check, level: Level::Soon, found, remedy: Some(remedy.to_owned()) }
    }

    pub(super) fn bad(check: &'static str, found: String, remedy: &str) -> Self {
        Self { check, level: Level::Bad, found, remedy: Some(remedy.to_owned()) }
    }
}

/// Judges the clock at `now`, in seconds since 1970, by moments that others say have passed:
/// when the CA signed, when peers started.
pub(super) fn clock(now: i64, passed: &[(String, i64)]) -> Finding {
    let remedy = "set the clock, and keep it by NTP";
    if now < EARLIEST {
        return Finding::bad("clock", format!("it says {now} s since 1970, long ago"), remedy);
    }
    let latest = passed.iter().max_by_key(|(_what, at)| *at);
    match latest.map(|(what, at)| (what, at - now)) {
        Some((what, ahead)) if ahead > SKEW => {
            Finding::bad("clock", format!("{what} lies {ahead} s ahead of it"), remedy)
        }
        Some(_) => Finding::well("clock", "later than all that others have dated".into()),
        None => Finding::well("clock", "plausible; nobody to compare it with".into()),
    }
}

/// Judges how long a certificate is good from `now` on; both ends in seconds since 1970.
pub(super) fn expiry(
    check: &'static str,
    name: &str,
    now: i64,
    not_after: i64,
    (soon_s, remedy): (i64, &str),
) -> Finding {
    let left = not_after - now;
    let days = left as f64 / 86_400.0;
    match left {
        ..=0 => Finding::bad(check, format!("{name} ended {:.1} days ago", -days), remedy),
        left if left < soon_s => {
            Finding::soon(check, format!("{name} ends in {days:.1} days"), remedy)
        }
        _ => Finding::well(check, format!("{name} is good for {days:.1} days")),
    }
}

/// Judges whether a listener's certificate is for every host the listener answers for.
pub(super) fn names(at: SocketAddr, missing: &[&str]) -> Option<Finding> {
    let found = || format!("the certificate at {at} is not for {}", missing.join(", "));
    let remedy = "order one for all hosts of the listener, or take those out of its names";
    (!missing.is_empty()).then(|| Finding::bad("certificate", found(), remedy))
}

/// Judges a port.
pub(super) fn port(what: &str, at: SocketAddr, port: &Port) -> Finding {
    match port {
        Port::Free => Finding::well("port", format!("{what} {at} is free")),
        Port::Held => Finding::well("port", format!("{what} {at} is held by this node")),
        Port::Refused(error) => {
            let remedy = "end what uses it, or take another; below 1024 takes CAP_NET_BIND_SERVICE";
            Finding::bad("port", format!("{what} {at} cannot be bound: {error}"), remedy)
        }
    }
}

/// Judges the age of the address database; `None` for one that does not tell.
pub(super) fn database(age: Option<Duration>, holds: Holds) -> Finding {
    let Some(age) = age else { return Finding::well("database", "its age is not told".into()) };
    let days = age.as_secs() / 86_400;
    let found = format!("the address database is {days} days old");
    let fetch = "fetch a new one with geo/fetch; a node takes it while it runs";
    match (Freshness::of(age), holds) {
        (Freshness::Fresh, _) => Finding::well("database", found),
        (Freshness::Ageing, Holds::Cities) => Finding::soon("database", found, fetch),
        (Freshness::Stale, Holds::Cities) => {
            let found = format!("{found}: its cities count as countries");
            Finding::soon("database", found, fetch)
        }
        (Freshness::Ageing | Freshness::Stale, Holds::Countries) => {
            let found = format!("{found}; it holds countries alone, which are believed at any age");
            Finding::soon("database", found, fetch)
        }
        (Freshness::Ageing | Freshness::Stale, Holds::Shipped) => Finding::well(
            "database",
            format!(
                "the countries that ship with the program are {days} days old, and believed at \
                 any age"
            ),
        ),
    }
}

/// Judges a peer by its row at the running node.
pub(super) fn peer(node: &str, standing: &str, fault: Option<&str>) -> Finding {
    match (standing, fault) {
        ("up", _) => Finding::well("peer", format!("{node} is up")),
        ("quarantined", fault) => Finding::bad(
            "peer",
            format!("{node} is in quarantine: {}", fault.unwrap_or("it broke a limit")),
            "look at that node's version and log",
        ),
        (_, _) => Finding::bad(
            "peer",
            format!("{node} is not reached"),
            "is it running? UDP has to pass both ways between the mesh addresses; its log says \
             whom it refuses",
        ),
    }
}

/// Judges whether the loops of a node that runs go on.
pub(super) fn loops(is_up: bool, stalled: &[String]) -> Option<Finding> {
    let remedy = "requests go on by what was last known; portolan handover starts a new process";
    match stalled {
        _ if !is_up => None,
        [] => Some(Finding::well("loops", "all of them go on".to_owned())),
        names => Some(Finding::bad("loops", format!("stalled: {}", names.join(", ")), remedy)),
    }
}

/// Judges an orchestrator by the round trip of a check, or by why it failed.
pub(super) fn orchestrator(uri: &str, checked: Result<Option<f64>, String>) -> Finding {
    match checked {
        Ok(Some(ms)) => Finding::well("orchestrator", format!("{uri} answers in {ms:.0} ms")),
        Ok(None) => Finding::well("orchestrator", format!("{uri} answers")),
        Err(why) => Finding::bad(
            "orchestrator",
            format!("{uri}: {why}"),
            "is it running, and may this machine connect there? else take it out of the file",
        ),
    }
}

/// Judges the disk of the journal by the bytes free there.
pub(super) fn disk(path: &Path, free: Result<u64, String>) -> Finding {
    let remedy = "make room, or move log.journal; a full journal refuses work";
    let at = path.display();
    match free {
        Err(error) => Finding::bad("journal", format!("{at}: {error}"), remedy),
        Ok(free) => {
            let found = format!("{} MB are free for {at}", free / 1_000_000);
            match free {
                ..DISK_BAD => Finding::bad("journal", found, remedy),
                DISK_BAD..DISK_SOON => Finding::soon("journal", found, remedy),
                DISK_SOON.. => Finding::well("journal", found),
            }
        }
    }
}

/// No clock that is right says less: 2025-01-01.
const EARLIEST: i64 = 1_735_689_600;
/// How far clocks of nodes may differ, in seconds: commands and certificates allow for as much.
const SKEW: i64 = 60;
/// An hour of a busy node's journal, in bytes,
const DISK_BAD: u64 = 100_000_000;
/// and a day's.
const DISK_SOON: u64 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[track_caller]
    fn check(finding: &Finding, level: Level, part: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.found.contains(part), "{finding:?}");
        assert_eq!(finding.remedy.is_some(), level != Level::Well, "{finding:?}");
    }

    #[test]
    fn a_clock_is_behind_what_others_have_dated_or_it_is_not() {
        let of = |at: i64| [("the start of fra-2".to_owned(), at), ("x".to_owned(), 0)];
        check(&clock(NOW, &of(NOW + SKEW)), Level::Well, "later");
        check(&clock(NOW, &of(NOW + SKEW + 1)), Level::Bad, "fra-2 lies 61 s");
        check(&clock(NOW, &[]), Level::Well, "nobody");
        check(&clock(EARLIEST - 1, &[]), Level::Bad, "long ago");
    }

    #[test]
    fn certificates_end() {
        let of = |left| expiry("certificate", "c.pem", NOW, NOW + left, (86_400, "renew it"));
        check(&of(86_400), Level::Well, "1.0 days");
        check(&of(86_399), Level::Soon, "1.0 days");
        check(&of(0), Level::Bad, "ended");
        let at = "127.0.0.1:443".parse().unwrap();
        check(&names(at, &["a.test", "b.test"]).unwrap(), Level::Bad, "a.test, b.test");
        assert_eq!(names(at, &[]), None);
    }

    #[test]
    fn ports_are_free_or_held_or_taken() {
        let at = "127.0.0.1:443".parse().unwrap();
        check(&port("clients", at, &Port::Free), Level::Well, "free");
        check(&port("clients", at, &Port::Held), Level::Well, "this node");
        check(&port("clients", at, &Port::Refused("in use".into())), Level::Bad, "in use");
    }

    #[test]
    fn a_database_ages() {
        check(&database(Some(Duration::ZERO), Holds::Cities), Level::Well, "0 days");
        check(&database(Some(Freshness::AGEING), Holds::Cities), Level::Soon, "35 days");
        check(&database(Some(Freshness::STALE), Holds::Cities), Level::Soon, "cities count as");
        check(&database(Some(Freshness::STALE), Holds::Countries), Level::Soon, "countries alone");
        check(&database(Some(Freshness::STALE), Holds::Shipped), Level::Well, "any age");
        check(&database(None, Holds::Shipped), Level::Well, "not told");
    }

    /// Of the database that ships nobody says that its cities are not believed: it has none.
    #[test]
    fn what_ships_holds_countries() {
        assert_eq!(Holds::of(&GeoIp::embedded().unwrap()), Holds::Shipped);
        let old = database(Some(Freshness::STALE * 2), Holds::Shipped);
        assert!(!old.found.contains("cities"), "{old:?}");
    }

    #[test]
    fn a_doubt_of_a_start_is_a_finding() {
        let of = |weight| {
            let said = Complaint::new("a.key", "value", "no such file", "give one");
            Finding::of(&Doubt { topic: "journal", weight, said })
        };
        check(&of(Weight::Odd), Level::Soon, "a.key = \"value\": no such file");
        check(&of(Weight::Broken), Level::Bad, "no such file");
        check(&of(Weight::Refused), Level::Bad, "no such file");
    }

    #[test]
    fn peers_and_orchestrators_are_reached_or_not() {
        check(&peer("a", "up", None), Level::Well, "up");
        check(&peer("a", "down", None), Level::Bad, "not reached");
        check(&peer("a", "quarantined", Some("too many frames")), Level::Bad, "too many");
        check(&orchestrator("https://o:1", Ok(Some(4.0))), Level::Well, "4 ms");
        check(&orchestrator("https://o:1", Ok(None)), Level::Well, "answers");
        check(&orchestrator("https://o:1", Err("refused".into())), Level::Bad, "refused");
    }

    #[test]
    fn loops_of_a_node_that_runs_go_on_or_not() {
        assert_eq!(loops(false, &[]), None);
        check(&loops(true, &[]).unwrap(), Level::Well, "go on");
        check(&loops(true, &["mesh".to_owned()]).unwrap(), Level::Bad, "mesh");
    }

    #[test]
    fn a_disk_has_room() {
        let path = Path::new("/var/journal");
        check(&disk(path, Ok(DISK_SOON)), Level::Well, "2000 MB");
        check(&disk(path, Ok(DISK_SOON - 1)), Level::Soon, "1999 MB");
        check(&disk(path, Ok(DISK_BAD - 1)), Level::Bad, "99 MB");
        check(&disk(path, Err("read-only".into())), Level::Bad, "read-only");
    }
}
