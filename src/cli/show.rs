//! What a person reads.

#![expect(clippy::print_stdout, reason = "commands print their results")]

use std::io::Write;
use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;

use crate::config::Config;
use crate::geo::expected_rtt;
use crate::geoip::Answer;
use crate::region::RegionMap;

/// Prints why a command failed, with its causes.
pub fn complain(error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let said = format!("portolan: {}\n", causes.join(": "));
    // With standard error gone there is nobody to tell.
    drop(std::io::stderr().write_all(said.as_bytes()));
}

/// Prints one line at once, for whoever waits for it.
pub(super) fn line(text: &str) -> Result<()> {
    println!("{text}");
    std::io::stdout().flush()?;
    Ok(())
}

pub(super) fn config(config: &Config) -> Result<()> {
    println!("node           {} in {}", config.node, config.region);
    println!("clients        {}", config.public);
    println!("public url     {}", config.public_url.as_deref().unwrap_or("(as clients ask)"));
    println!("operators      {}", config.admin);
    match &config.mesh {
        Some(mesh) => {
            println!("mesh           {} as {}", mesh.listen, mesh.trust_domain);
            for peer in &mesh.params.peers {
                let address = mesh.addresses.get(peer).map(ToString::to_string);
                println!("peer           {peer} at {}", address.as_deref().unwrap_or("(dials us)"));
            }
        }
        None => println!("mesh           none: this node has no peers"),
    }
    println!("regions        {}", config.regions.len());
    println!(
        "orchestrators  {} listed, {} lists",
        config.orchestrators.len(),
        config.sources.len()
    );
    for named in &config.orchestrators {
        let region = named.region.map(|it| it.to_string());
        println!("orchestrator   {} in {}", named.uri, region.as_deref().unwrap_or("(unknown)"));
    }
    let geoip = if config.geoip.is_empty() { "embedded countries" } else { "files" };
    println!("geoip          {geoip}");
    for file in &config.geoip {
        println!("geoip file     {}", file.display());
    }
    let key =
        if config.ticket_key.is_some() { "from file" } else { "random: URLs end with the process" };
    println!("ticket key     {key}");
    let journal = config.journal.as_ref().map(|it| it.display().to_string());
    println!("journal        {}", journal.as_deref().unwrap_or("none"));
    println!(
        "requests       {} at once, {} attempts each",
        config.in_flight_max, config.attempts_max
    );
    println!("sessions       {} at once, idle for {:?}", config.sessions_max, config.session.idle);
    println!("checks         {} a second", config.directory.checks_per_second);
    println!("IP Geolocation by DB-IP (https://db-ip.com)");
    line("ok")
}

pub(super) fn place(ip: IpAddr, answer: &Answer, regions: &RegionMap) -> Result<()> {
    println!("address     {ip}");
    println!("class       {}", format!("{:?}", answer.class).to_lowercase());
    let Some(place) = answer.place else {
        return line("place       unknown: a node uses its own region");
    };
    let country = place.country.map(|it| it.to_string());
    println!("country     {}", country.as_deref().unwrap_or("unknown"));
    println!("confidence  {}", text(&serde_json::to_value(place.confidence)?));
    println!("point       {:.4}, {:.4}", place.point.lat(), place.point.lon());
    let mut near: Vec<_> =
        regions.iter().map(|region| (place.point.distance_m(&region.point), region)).collect();
    near.sort_by_key(|(metres, region)| (*metres, region.id));
    for (at, (metres, region)) in near.into_iter().take(5).enumerate() {
        let label = if at == 0 { "home" } else { "then" };
        println!(
            "{label:<11} {:<4} {} ({} km, about {})",
            region.id,
            region.name,
            metres / 1000,
            expected_rtt(metres)
        );
    }
    line("IP Geolocation by DB-IP (https://db-ip.com)")
}

pub(super) fn explain(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    let caller = &found["caller"];
    println!(
        "{} for {} by the {} path, caller at home in {} ({}, known by {})",
        found["decision"].as_str().map_or("hypothetical".to_owned(), |id| format!("decision {id}")),
        text(&found["capability"]),
        text(&found["path"]),
        text(&caller["home"]),
        text(&caller["country"]),
        text(&caller["confidence"]),
    );
    println!(
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
    );
    for it in found["candidates"].as_array().into_iter().flatten() {
        if it["verdict"] == "excluded" {
            println!(
                "{:<9} {:<16} {:<6} {:>9} because: {}",
                "excluded",
                text(&it["orchestrator"]),
                text(&it["region"]),
                "",
                text(&it["reason"])
            );
            continue;
        }
        let (terms, data) = (&it["terms_ms"], &it["data"]);
        let ms = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or_default());
        println!(
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
        );
    }
    line("")
}

pub(super) fn orchestrators(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    println!(
        "{:<16} {:<6} {:<10} {:>8} {:<11} {:>9} {:>7}  uri",
        "id", "region", "standing", "rtt ms", "evidence", "failures", "flying"
    );
    for it in found["orchestrators"].as_array().into_iter().flatten() {
        println!(
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
        );
    }
    line("")
}

pub(super) fn sessions(found: &Value, json: bool) -> Result<()> {
    if json {
        return line(&serde_json::to_string_pretty(found)?);
    }
    println!(
        "{:<28} {:<16} {:<9} {:<16} {:<6} {:>6} {:>9} {:>12}",
        "session", "app", "state", "orchestrator", "home", "age s", "requests", "bytes down"
    );
    for it in found["sessions"].as_array().into_iter().flatten() {
        println!(
            "{:<28} {:<16} {:<9} {:<16} {:<6} {:>6} {:>9} {:>12}",
            text(&it["session"]),
            text(&it["app"]),
            text(&it["state"]),
            text(&it["orchestrator"]),
            text(&it["home"]),
            text(&it["age_s"]),
            text(&it["requests"]),
            text(&it["bytes_down"]),
        );
    }
    line("")
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => "-".to_owned(),
        None => value.to_string(),
    }
}
