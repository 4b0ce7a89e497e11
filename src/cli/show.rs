//! What a person reads.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;

use crate::app::ground::Doubt;
use crate::config::Config;
use crate::geo::expected_rtt;
use crate::geoip::Answer;
use crate::livepeer::error;
use crate::region::RegionMap;

/// Prints why a command failed, with its causes.
pub fn complain(error: &anyhow::Error) {
    let said = format!("portolan: {}\n", reasons(error));
    // With standard error gone there is nobody to tell.
    drop(std::io::stderr().write_all(said.as_bytes()));
}

/// Tells a person something that is no part of what the command prints.
pub(super) fn note(said: &str) {
    // As above.
    drop(std::io::stderr().write_all(format!("note: {said}\n").as_bytes()));
}

/// Returns an error with its causes, but for those that it names itself.
fn reasons(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.last().is_none_or(|before| !before.ends_with(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ")
}

/// Reads the message of a node's refusal, which may have several lines.
pub(super) fn refusal(body: &[u8]) -> String {
    let told: Option<Value> = serde_json::from_slice(body).ok();
    let message = told.as_ref().and_then(|it| it["error"]["message"].as_str());
    let Some(message) = message else { return error::message(body) };
    let shown = message.chars().filter(|it| *it == '\n' || !it.is_control());
    shown.take(REFUSAL_MAX).collect()
}

/// Prints one line at once, for whoever waits for it.
pub(super) fn line(said: &str) -> Result<()> {
    print(&format!("{said}\n"))
}

/// Writes to standard output. Whoever read it may have seen enough, as `head` has: that is
/// no fault of the command.
fn print(said: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(said.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints what a configuration resolves to, and what is to be doubted in it.
pub(super) fn config(config: &Config, doubts: &[Doubt]) -> Result<()> {
    let mut out = String::new();
    writeln!(out, "node           {} in {}", config.node, config.region)?;
    for listener in &config.listeners {
        let how = if listener.tls.is_some() { "TLS" } else { "plain HTTP" };
        let behind = if listener.proxied { ", after a PROXY header" } else { "" };
        writeln!(out, "clients        {} ({how}{behind})", listener.address)?;
    }
    writeln!(out, "public url     {}", config.public_url.as_deref().unwrap_or("(as clients ask)"))?;
    writeln!(out, "operators      {}", config.admin)?;
    match &config.mesh {
        Some(mesh) => {
            writeln!(out, "mesh           {} as {}", mesh.listen, mesh.trust_domain)?;
            for peer in &mesh.params.peers {
                let address = mesh.addresses.get(peer).map(ToString::to_string);
                writeln!(
                    out,
                    "peer           {peer} at {}",
                    address.as_deref().unwrap_or("(dials us)")
                )?;
            }
        }
        None => writeln!(out, "mesh           none: this node has no peers")?,
    }
    writeln!(out, "regions        {}", config.regions.len())?;
    writeln!(
        out,
        "orchestrators  {} listed, {} lists",
        config.orchestrators.len(),
        config.sources.len()
    )?;
    for named in &config.orchestrators {
        let region = named.region.map(|it| it.to_string());
        writeln!(
            out,
            "orchestrator   {} in {}",
            named.uri,
            region.as_deref().unwrap_or("(unknown)")
        )?;
    }
    let geoip = if config.geoip.is_empty() { "embedded countries" } else { "files" };
    writeln!(out, "geoip          {geoip}")?;
    for file in &config.geoip {
        writeln!(out, "geoip file     {}", file.display())?;
    }
    let key = if config.ticket_key.is_some() { "from file" } else { "random" };
    writeln!(out, "ticket key     {key}")?;
    let journal = config.journal.as_ref().map(|it| it.display().to_string());
    writeln!(out, "journal        {}", journal.as_deref().unwrap_or("none"))?;
    writeln!(
        out,
        "requests       {} at once, {} attempts each",
        config.in_flight_max, config.attempts_max
    )?;
    writeln!(
        out,
        "sessions       {} at once, idle for {:?}",
        config.sessions_max, config.session.idle
    )?;
    writeln!(out, "checks         {} a second", config.directory.checks_per_second)?;
    writeln!(out, "IP Geolocation by DB-IP (https://db-ip.com)")?;
    for it in doubts {
        writeln!(out, "warning        {it}")?;
    }
    match doubts.len() {
        0 => writeln!(out, "ok")?,
        n => writeln!(out, "ok, but for the warnings ({n})")?,
    }
    print(&out)
}

pub(super) fn place(ip: IpAddr, answer: &Answer, regions: &RegionMap) -> Result<()> {
    let mut out = String::new();
    writeln!(out, "address     {ip}")?;
    writeln!(out, "class       {}", format!("{:?}", answer.class).to_lowercase())?;
    let Some(place) = answer.place else {
        writeln!(out, "place       unknown: a node uses its own region")?;
        return print(&out);
    };
    let country = place.country.map(|it| it.to_string());
    writeln!(out, "country     {}", country.as_deref().unwrap_or("unknown"))?;
    writeln!(out, "confidence  {}", text(&serde_json::to_value(place.confidence)?))?;
    writeln!(out, "point       {:.4}, {:.4}", place.point.lat(), place.point.lon())?;
    let mut near: Vec<_> =
        regions.iter().map(|region| (place.point.distance_m(&region.point), region)).collect();
    near.sort_by_key(|(metres, region)| (*metres, region.id));
    for (at, (metres, region)) in near.into_iter().take(5).enumerate() {
        let label = if at == 0 { "home" } else { "then" };
        writeln!(
            out,
            "{label:<11} {:<4} {} ({} km, about {})",
            region.id,
            region.name,
            metres / 1000,
            expected_rtt(metres)
        )?;
    }
    writeln!(out, "IP Geolocation by DB-IP (https://db-ip.com)")?;
    print(&out)
}

pub(super) fn explain(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    let mut out = String::new();
    let caller = &found["caller"];
    writeln!(
        out,
        "{} for {} by the {} path, caller at home in {} ({}, known by {})",
        found["decision"].as_str().map_or("hypothetical".to_owned(), |id| format!("decision {id}")),
        text(&found["capability"]),
        text(&found["path"]),
        text(&caller["home"]),
        text(&caller["country"]),
        text(&caller["confidence"]),
    )?;
    writeln!(
        out,
        "{:<9} {:<16} {:<6} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}  evidence",
        "verdict",
        "orchestrator",
        "region",
        "cost ms",
        "path",
        "queue",
        "service",
        "failing",
        "price"
    )?;
    for it in found["candidates"].as_array().into_iter().flatten() {
        if it["verdict"] == "excluded" {
            writeln!(
                out,
                "{:<9} {:<16} {:<6} {:>9} because: {}",
                "excluded",
                text(&it["orchestrator"]),
                text(&it["region"]),
                "",
                text(&it["reason"])
            )?;
            continue;
        }
        let (terms, data) = (&it["terms_ms"], &it["data"]);
        let ms = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or_default());
        writeln!(
            out,
            "{:<9} {:<16} {:<6} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}  {} {} ms, {} ms old",
            text(&it["verdict"]),
            text(&it["orchestrator"]),
            text(&it["region"]),
            ms(&it["cost_ms"]),
            ms(&terms["path"]),
            ms(&terms["queue"]),
            ms(&terms["service"]),
            ms(&terms["failing"]),
            ms(&terms["price"]),
            text(&data["evidence"]),
            ms(&data["rtt_ms"]),
            text(&data["evidence_age_ms"]),
        )?;
    }
    writeln!(out)?;
    print(&out)
}

/// Prints what a reload changed, or would change, as a diff.
pub(super) fn reloaded(told: &Value, dry_run: bool, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(told)?);
    }
    let mut out = String::new();
    for change in told["changes"].as_array().into_iter().flatten() {
        for (sign, value) in [('-', &change["before"]), ('+', &change["after"])] {
            if let Some(value) = value.as_str() {
                writeln!(out, "{sign} {} = {value}", text(&change["key"]))?;
            }
        }
    }
    for it in told["warnings"].as_array().into_iter().flatten() {
        writeln!(out, "warning: {}", text(it))?;
    }
    let done = if dry_run { "would be read; in use is" } else { "is in use, as" };
    writeln!(out, "{} {done} version {}", text(&told["hash"]), told["version"])?;
    print(&out)
}

pub(super) fn handed_over(told: &Value, json: bool) -> Result<()> {
    if json {
        return print(&format!("{told:#}\n"));
    }
    print(&format!("process {} took over; this one ends what it serves\n", told["process"]))
}

pub(super) fn orchestrators(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    let mut out = String::new();
    writeln!(
        out,
        "{:<16} {:<6} {:<10} {:>8} {:<11} {:>9} {:>7}  uri",
        "id", "region", "standing", "rtt ms", "evidence", "failures", "flying"
    )?;
    for it in found["orchestrators"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "{:<16} {:<6} {:<10} {:>8.1} {:<11} {:>9.1} {:>7}  {}{}",
            text(&it["id"]),
            text(&it["region"]),
            text(&it["standing"]),
            it["rtt_ms"].as_f64().unwrap_or_default(),
            text(&it["rtt_evidence"]),
            it["failures"].as_f64().unwrap_or_default(),
            text(&it["in_flight"]),
            text(&it["uri"]),
            it["last_failure"].as_str().map_or(String::new(), |said| format!(" ({said})")),
        )?;
    }
    writeln!(out)?;
    print(&out)
}

/// `own` is what the asked node says of itself, `found` what it says of its peers.
pub(super) fn members(own: &Value, found: &Value, json: bool) -> Result<()> {
    if json {
        let all = serde_json::json!({ "node": own, "peers": found["peers"] });
        return line(&serde_json::to_string_pretty(&all)?);
    }
    let mut out = String::new();
    writeln!(
        out,
        "{:<16} {:<6} {:<11} {:<10} {:>8} {:>14} {:<8} {:<21} url",
        "node", "region", "standing", "membership", "rtt ms", "epoch", "version", "address"
    )?;
    writeln!(
        out,
        "{:<16} {:<6} {:<11} {:<10} {:>8} {:>14} {:<8}",
        text(&own["node"]),
        text(&own["region"]),
        "itself",
        "",
        "",
        "",
        text(&own["version"]),
    )?;
    for it in found["peers"].as_array().into_iter().flatten() {
        let drains = it["draining"].as_bool().unwrap_or_default();
        writeln!(
            out,
            "{:<16} {:<6} {:<11} {:<10} {:>8} {:>14} {:<8} {:<21} {}",
            text(&it["node"]),
            text(&it["region"]),
            if drains { "draining".to_owned() } else { text(&it["standing"]) },
            text(&it["membership"]),
            it["rtt_ms"].as_f64().map_or(String::from("-"), |it| format!("{it:.1}")),
            text(&it["epoch"]),
            text(&it["version"]),
            text(&it["address"]),
            text(&it["url"]),
        )?;
    }
    writeln!(out)?;
    print(&out)
}

pub(super) fn sessions(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    let mut out = String::new();
    writeln!(
        out,
        "{:<28} {:<16} {:<9} {:<16} {:<6} {:>6} {:>9} {:>12}",
        "session", "app", "state", "orchestrator", "home", "age s", "requests", "bytes down"
    )?;
    for it in found["sessions"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "{:<28} {:<16} {:<9} {:<16} {:<6} {:>6} {:>9} {:>12}",
            text(&it["session"]),
            text(&it["app"]),
            text(&it["state"]),
            text(&it["orchestrator"]),
            text(&it["home"]),
            text(&it["age_s"]),
            text(&it["requests"]),
            text(&it["bytes_down"]),
        )?;
    }
    writeln!(out)?;
    print(&out)
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => "-".to_owned(),
        None => value.to_string(),
    }
}

/// What is shown of a refusal, in characters: a screen of complaints.
const REFUSAL_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_named_already_is_not_named_again() {
        let refused = || anyhow::anyhow!("refused");
        assert_eq!(reasons(&refused().context("cannot connect")), "cannot connect: refused");
        assert_eq!(
            reasons(&refused().context("cannot connect: refused")),
            "cannot connect: refused"
        );
    }

    #[test]
    fn lines_of_a_refusal_stay_apart() {
        let body = |said: &str| error::body(said).into_bytes();
        let said = refusal(&body("a.toml: at line 2\n  |\n2 | x\u{1b}[1m"));
        assert_eq!(said, "a.toml: at line 2\n  |\n2 | x[1m");
        assert_eq!(refusal(&body(&"x".repeat(REFUSAL_MAX + 1))).len(), REFUSAL_MAX);
        assert_eq!(refusal(b"no\tJSON"), "no JSON");
    }
}
