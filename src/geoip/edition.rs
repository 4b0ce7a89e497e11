//! One database file: opened whole, and checked before it may answer.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use maxminddb::MaxMindDbError;
use maxminddb::Reader;

use super::GeoError;
use super::GeoIp;
use super::record::Record;
use crate::unit::Country;

/// What a loaded file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Edition {
    /// The path as configured, or `embedded`.
    pub source: String,
    /// The type it gives itself, such as `GeoLite2-City`; at most 64 characters.
    pub kind: String,
    /// When it was built, since the Unix epoch.
    pub built: Duration,
    /// Its size.
    pub bytes: u64,
    /// It answers for IPv4.
    pub has_v4: bool,
    /// It answers for IPv6.
    pub has_v6: bool,
    /// It knows cities.
    pub has_cities: bool,
}

/// An open file.
pub(super) struct Loaded {
    pub(super) edition: Edition,
    reader: Reader<Bytes>,
}

impl Loaded {
    /// Reads and checks the file at `path`.
    pub(super) fn open(path: &Path, wall: Duration) -> Result<Self, GeoError> {
        let file = path.display().to_string();
        let bytes = read(path, &file)?;
        Self::check(file, bytes, Some(wall))
    }

    /// Checks the content of a file. `wall` is left out for the file that ships with the
    /// program: it is no younger than the program, so it is the clock that errs.
    pub(super) fn check(
        source: String,
        bytes: Bytes,
        wall: Option<Duration>,
    ) -> Result<Self, GeoError> {
        if let Some(error) = foreign(&source, &bytes) {
            return Err(error);
        }
        let n_bytes = bytes.len() as u64;
        let damaged = |error: MaxMindDbError| GeoError::Damaged {
            file: source.clone(),
            reason: error.to_string(),
        };
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        let metadata = reader.metadata();
        let kind: String = metadata.database_type.chars().take(KIND_MAX).collect();
        let built = Duration::from_secs(metadata.build_epoch);
        let ahead = wall.map_or(Duration::ZERO, |wall| built.saturating_sub(wall));
        if ahead > FUTURE_MAX {
            return Err(GeoError::Future { file: source, days: ahead.as_secs() / 86_400 });
        }
        let edition = Edition {
            source: source.clone(),
            kind,
            built,
            bytes: n_bytes,
            has_v4: false,
            has_v6: false,
            has_cities: false,
        };
        let mut loaded = Self { edition, reader };
        let swept = loaded.sweep().map_err(damaged)?;
        if !swept.is_geographic {
            return Err(GeoError::WrongKind { file: source, kind: loaded.edition.kind });
        }
        loaded.edition.has_cities = swept.has_cities;
        loaded.ask_canaries()?;
        Ok(loaded)
    }

    /// Returns the record of a canonical address; an empty one if there is none.
    pub(super) fn record(&self, ip: IpAddr) -> Result<Record, MaxMindDbError> {
        // A file of IPv4 alone calls any IPv6 address an error.
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Record::default());
        }
        Ok(self.reader.lookup(ip)?.decode()?.unwrap_or_default())
    }

    /// Decodes the records of addresses from all over the file: damage shows as an error.
    ///
    /// The reader's own `verify` is not used: it refuses sound files that lack a
    /// description, and passes files with zeroed records.
    fn sweep(&self) -> Result<Swept, MaxMindDbError> {
        let mut swept = Swept { is_geographic: false, has_cities: false };
        let canaries = CANARIES.iter().filter_map(|(ip, _)| ip.parse().ok());
        for ip in spread().chain(canaries) {
            let record = self.record(ip)?;
            swept.is_geographic |= record.is_geographic();
            swept.has_cities |= record.has_city();
        }
        Ok(swept)
    }

    /// Asks for networks whose country has been the same for decades, and learns which
    /// families the file answers for.
    fn ask_canaries(&mut self) -> Result<(), GeoError> {
        let (mut n_right, mut n_wrong) = ([0, 0], [0, 0]);
        for (ip, country) in CANARIES {
            let Ok(ip) = ip.parse::<IpAddr>() else { continue };
            let found = self.record(ip).ok().and_then(|it| it.any_country());
            match found {
                None => {}
                found if found == Country::parse(country) => n_right[family(ip)] += 1,
                Some(_) => n_wrong[family(ip)] += 1,
            }
        }
        let is_whole = |family: usize| n_right[family] * 2 > CANARIES.len() / 2;
        let (has_v4, has_v6) = (is_whole(0), is_whole(1));
        let lies = n_wrong[0] > n_right[0] || n_wrong[1] > n_right[1];
        if lies || !(has_v4 || has_v6) {
            let wrong = CANARIES.len() - n_right[0] - n_right[1];
            let file = self.edition.source.clone();
            return Err(GeoError::Canary { file, wrong, n_canaries: CANARIES.len() });
        }
        (self.edition.has_v4, self.edition.has_v6) = (has_v4, has_v6);
        Ok(())
    }
}

struct Swept {
    is_geographic: bool,
    has_cities: bool,
}

fn read(path: &Path, name: &str) -> Result<Bytes, GeoError> {
    let unreadable = |source: std::io::Error| {
        let file = name.to_owned();
        if source.kind() == std::io::ErrorKind::NotFound {
            GeoError::Missing { file }
        } else {
            GeoError::Unreadable { file, source }
        }
    };
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        // Opening a pipe would wait for its writer.
        return Err(unreadable(std::io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::with_capacity(found.len().min(GeoIp::BYTES_MAX) as usize);
    let file = File::open(path).map_err(unreadable)?;
    let n_read = file.take(GeoIp::BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if n_read as u64 > GeoIp::BYTES_MAX {
        return Err(GeoError::TooLarge { file: name.to_owned() });
    }
    Ok(bytes.into())
}

/// Recognises what people put in the place of a database.
fn foreign(name: &str, bytes: &[u8]) -> Option<GeoError> {
    let file = name.to_owned();
    let tools: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gunzip (tar -xzf if it is a .tar.gz)"),
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
        (b"\xfd7zXZ", "unxz"),
        (b"BZh", "bunzip2"),
        (b"PK\x03\x04", "unzip"),
    ];
    if let Some((_, tool)) = tools.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(GeoError::Packed { file, tool });
    }
    let is_page = bytes.trim_ascii_start().starts_with(b"<");
    is_page.then_some(GeoError::WebPage { file })
}

/// Addresses spread over IPv4 and over the global unicast part of IPv6.
fn spread() -> impl Iterator<Item = IpAddr> {
    (0..SWEEP_MAX).flat_map(|step: u32| {
        // The golden ratio's multiples fill a range evenly at every count.
        let v4 = step.wrapping_mul(0x9e37_79b9);
        let v6 = (0x2000 << 112) | u128::from(v4) << 93;
        [IpAddr::V4(Ipv4Addr::from_bits(v4)), IpAddr::V6(Ipv6Addr::from_bits(v6))]
    })
}

fn family(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

/// How many addresses of each family are decoded at load: enough to meet 2,000 damaged
/// bytes of a small file, for some milliseconds.
const SWEEP_MAX: u32 = 1024;
/// The longest type kept for metrics and errors.
const KIND_MAX: usize = 64;
/// How far a clock may lag behind the vendor's.
const FUTURE_MAX: Duration = Duration::from_hours(48);

/// Old networks of universities and registries, as many of each family; both databases of
/// mid-2026 that were tried place all of them right. IPv4 first.
const CANARIES: [(&str, &str); 16] = [
    ("128.2.1.1", "US"),
    ("129.132.1.1", "CH"),
    ("130.89.1.1", "NL"),
    ("130.237.1.1", "SE"),
    ("131.111.1.1", "GB"),
    ("133.11.0.1", "JP"),
    ("137.158.1.1", "ZA"),
    ("143.107.1.1", "BR"),
    ("2001:200::1", "JP"),
    ("2001:388::1", "AU"),
    ("2001:468::1", "US"),
    ("2001:620::1", "CH"),
    ("2001:630::1", "GB"),
    ("2001:638::1", "DE"),
    ("2001:67c:2e8:22::c100:68b", "NL"),
    ("2001:12ff::1", "BR"),
];
