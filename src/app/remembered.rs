//! What a node remembers of orchestrators over a restart: enough to choose among them before
//! any has answered again. Taken as old evidence, which the first check replaces.
//!
//! One file in the data directory: a line with version, time and checksum, a line with rows.
//! It is replaced as a whole. A file that cannot be used is left aside, and so is one that is
//! too old: the node then begins as it would without.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::actors::Shared;
use crate::clock;
use crate::edge::Gateway;
use crate::geo::Point;
use crate::id::{OrchestratorId, RegionId};
use crate::score::Evidence;
use crate::unit::{Country, Micros};
use crate::uri::ServiceUri;
use crate::view::outcome::Gauge;
use crate::view::row::{Link, Mode, Offer, Outcomes, Runner, Standing};
use crate::view::{Row, View};

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// Seconds since 1970.
    written_s: u64,
    /// SHA-256 of the second line, in hexadecimal digits.
    sum: String,
}

/// One orchestrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    uri: ServiceUri,
    operator: Arc<str>,
    point: Option<(f64, f64)>,
    region: RegionId,
    country: Option<Country>,
    version: Arc<str>,
    rtt_us: u64,
    evidence: Evidence,
    reach: i16,
    weight_us: u64,
    /// What its certificate hashed to, where one was met.
    pin: Option<[u8; 32]>,
    offers: Vec<KnownOffer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownOffer {
    capability: Arc<str>,
    runner: Option<KnownRunner>,
    service_us: Option<u64>,
    holding_us: u64,
    capacity_milli: u32,
    /// In decimal digits: it may be longer than a number of JSON.
    price_wei: Option<String>,
    price_us: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownRunner {
    url: Arc<str>,
    path: Option<Arc<str>>,
    persistent: bool,
    gpu: Option<Arc<str>>,
    advert: Arc<str>,
    variant: u32,
    capacity: u32,
}

/// Takes what the file in `data` remembers into the View and the pins; returns how many
/// orchestrators that are. Blocks.
pub(super) fn recall(data: &Path, shared: &Shared, wall: Duration, now: Instant) -> Result<usize> {
    let Some((known, age)) = read(&data.join(FILE), wall)? else { return Ok(0) };
    let view = shared.view.load_full();
    // A machine that started since cannot tell how old it is: it counts as long ago as it can.
    let at = now.checked_sub(age).unwrap_or(now);
    let mut changes = Vec::with_capacity(known.len());
    for it in known {
        let id = OrchestratorId::of(&it.uri);
        if let Some(pin) = it.pin {
            shared.upstream.dialer().pins.restore(id, pin);
        }
        let row = row(it, &view, at, |name| shared.intern(name));
        changes.push((id, row.map(Arc::new)));
    }
    let n = changes.len();
    let next = view.next(now, Arc::new(shared.capabilities()), changes);
    shared.view.store(Arc::new(next));
    Ok(n)
}

/// Writes what is known of orchestrators now, again and again.
pub(super) async fn keep(gateway: Arc<Gateway>, data: PathBuf) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = false;
    let pulse = gateway.shared.pulses.of(clock::now(), "remembered", EVERY * 6);
    loop {
        ticks.tick().await;
        pulse.beat(clock::now());
        let (shared, data) = (Arc::clone(&gateway.shared), data.clone());
        let written = tokio::task::spawn_blocking(move || write(&data, &shared)).await;
        match written.map_err(anyhow::Error::from).flatten() {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                let error = format!("{error:#}");
                tracing::warn!(%error, "what is known of orchestrators is not kept");
            }
            Err(_again) => {}
        }
    }
}

/// Writes what is known of orchestrators now, unless nobody is ready: that says nothing. Blocks.
pub(super) fn write(data: &Path, shared: &Shared) -> Result<()> {
    let view = shared.view.load_full();
    let pins = &shared.upstream.dialer().pins;
    let ready = view.rows().filter(|(_slot, row)| row.standing == Standing::Ready);
    let known: Vec<Known> =
        ready.take(KNOWN_MAX).map(|(_slot, row)| known(row, &view, pins.of(row.id))).collect();
    if known.is_empty() {
        return Ok(());
    }
    let path = data.join(FILE);
    let text = serde_json::to_string(&known)?;
    let head = Head { version: VERSION, written_s: clock::wall().as_secs(), sum: sum(&text) };
    let fresh = path.with_extension("new");
    let written = || {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(format!("{}\n{text}\n", serde_json::to_string(&head)?).as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    };
    written().with_context(|| {
        format!("mesh.data: cannot write {}; give a directory this user may write", path.display())
    })
}

/// Returns what the file says and how old that is; `None` where there is none.
fn read(path: &Path, wall: Duration) -> Result<Option<(Vec<Known>, Duration)>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= FILE_MAX, "it is longer than {FILE_MAX} bytes");
    let (head, rest) = text.split_once('\n').context("it has no second line")?;
    let head: Head = serde_json::from_str(head)?;
    ensure!(head.version == VERSION, "it is of version {}", head.version);
    let rest = rest.trim_end();
    ensure!(sum(rest) == head.sum, "its checksum is not that of its rows");
    let age = wall.saturating_sub(Duration::from_secs(head.written_s));
    ensure!(age <= AGE_MAX, "it is {} hours old", age.as_secs() / 3600);
    let mut known: Vec<Known> = serde_json::from_str(rest)?;
    known.truncate(KNOWN_MAX);
    Ok(Some((known, age)))
}

fn known(row: &Row, view: &View, pin: Option<[u8; 32]>) -> Known {
    let offer = |offer: &Offer| KnownOffer {
        capability: Arc::clone(view.capabilities.name(offer.capability)),
        runner: offer.runner.as_ref().map(|it| KnownRunner {
            url: Arc::clone(&it.url),
            path: it.path.as_ref().map(|it| it.as_str().into()),
            persistent: it.mode == Mode::Persistent,
            gpu: it.gpu.clone(),
            advert: Arc::clone(&it.advert),
            variant: it.variant,
            capacity: it.capacity,
        }),
        service_us: offer.service.map(|it| it.0),
        holding_us: offer.holding.0,
        capacity_milli: offer.capacity_milli,
        price_wei: offer.price_wei.map(|it| it.to_string()),
        price_us: offer.price.0,
    };
    Known {
        uri: row.uri.clone(),
        operator: Arc::clone(&row.operator),
        point: row.point.map(|it| (it.lat(), it.lon())),
        region: view.atlas.name(row.region),
        country: row.country,
        version: Arc::clone(&row.version),
        rtt_us: row.link.rtt.0,
        evidence: row.link.evidence,
        reach: row.reach,
        weight_us: row.weight.0,
        pin,
        offers: row.offers.iter().map(offer).collect(),
    }
}

/// Returns the row of one that was known at `at`; `None` where its region is known no more.
fn row(
    known: Known,
    view: &View,
    at: Instant,
    mut intern: impl FnMut(&str) -> Option<crate::view::CapabilityId>,
) -> Option<Row> {
    let region = view.atlas.names.iter().position(|it| *it == known.region)?;
    let offers = known.offers.into_iter().take(usize::from(u8::MAX)).filter_map(|it| {
        Some(Offer {
            capability: intern(&it.capability)?,
            runner: it.runner.map(|it| {
                Arc::new(Runner {
                    url: it.url,
                    path: it.path.and_then(|it| it.parse().ok()),
                    mode: if it.persistent { Mode::Persistent } else { Mode::SingleShot },
                    gpu: it.gpu,
                    advert: it.advert,
                    variant: it.variant,
                    capacity: it.capacity,
                    capacity_used: 0,
                })
            }),
            service: it.service_us.map(Micros),
            holding: Micros(it.holding_us),
            capacity_milli: it.capacity_milli,
            others_milli: 0,
            arrivals_milli: 0,
            load_at: at.into(),
            price_wei: it.price_wei.and_then(|it| it.parse().ok()),
            price: Micros(it.price_us),
        })
    });
    Some(Row {
        id: OrchestratorId::of(&known.uri),
        uri: known.uri,
        operator: known.operator,
        point: known.point.and_then(|(lat, lon)| Point::new(lat, lon).ok()),
        region: u8::try_from(region).ok()?,
        country: known.country,
        version: known.version,
        link: Link {
            rtt: Micros(known.rtt_us),
            evidence: known.evidence,
            at: Some(at.into()),
            by: None,
            via: None,
        },
        told: Arc::default(),
        reach: known.reach,
        outcomes: Outcomes { failures_milli: 0, successes_milli: 0, at: at.into(), told_by: None },
        weight: Micros(known.weight_us),
        standing: Standing::Ready,
        checked_at: Some(at),
        last_failure: None,
        offers: offers.collect(),
        refused_ever: 0,
        gauge: Arc::new(Gauge::default()),
    })
}

fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file, in the data directory.
const FILE: &str = "orchestrators";
/// Of what stands in it; another is not read.
const VERSION: u32 = 1;
/// What a crash loses: nothing that the first checks do not tell.
const EVERY: Duration = Duration::from_secs(10);
/// Orchestrators in the file, as many as stand in short lists of a large mesh.
const KNOWN_MAX: usize = 4096;
/// At about 2 KB each.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// What was known a day ago is no better than nothing.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_secs(1_800_000_000);

    fn one() -> Known {
        Known {
            uri: "https://o.example:8935".parse().unwrap(),
            operator: "https://o.example:8935".into(),
            point: Some((50.0, 8.5)),
            region: "FRA".parse().unwrap(),
            country: Country::parse("DE"),
            version: "1".into(),
            rtt_us: 4000,
            evidence: Evidence::Own,
            reach: 3,
            weight_us: 0,
            pin: Some([3; 32]),
            offers: vec![KnownOffer {
                capability: "demo/once".into(),
                runner: None,
                service_us: None,
                holding_us: 5,
                capacity_milli: 8000,
                price_wei: Some(u128::MAX.to_string()),
                price_us: 0,
            }],
        }
    }

    fn file(version: u32, written: Duration, rows: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let head = Head { version, written_s: written.as_secs(), sum: sum(rows) };
        let path = folder.path().join(FILE);
        fs::write(&path, format!("{}\n{rows}\n", serde_json::to_string(&head).unwrap())).unwrap();
        (folder, path)
    }

    #[test]
    fn what_was_written_is_read_with_its_age() {
        let rows = serde_json::to_string(&[one()]).unwrap();
        let (_folder, path) = file(VERSION, WALL - AGE_MAX, &rows);
        assert_eq!(read(&path, WALL).unwrap(), Some((vec![one()], AGE_MAX)));
        assert!(read(&path, WALL + Duration::from_secs(1)).is_err(), "too old");
        assert_eq!(read(Path::new("/nowhere/orchestrators"), WALL).unwrap(), None);
    }

    #[test]
    fn what_was_changed_or_is_of_another_version_is_not() {
        let rows = serde_json::to_string(&[one()]).unwrap();
        let (_folder, path) = file(VERSION + 1, WALL, &rows);
        assert!(read(&path, WALL).is_err());
        let (_folder, path) = file(VERSION, WALL, &rows);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("4000", "1000")).unwrap();
        assert!(read(&path, WALL).is_err());
        for n in [0, 5, whole.len() / 2, whole.len() - 3] {
            fs::write(&path, &whole[..n]).unwrap();
            assert!(read(&path, WALL).is_err(), "{n} bytes of it");
        }
    }
}
