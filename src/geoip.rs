//! Where an address is: a set of MMDB files, opened whole, checked, and asked.
//!
//! Files are read into memory, never mapped: a mapped file that somebody truncates kills
//! the process. No outside byte can make an answer worse than "not known".

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address;
use crate::address::Class;
use crate::geo::Confidence;
use crate::geo::Place;

mod centre;
mod edition;
mod record;
mod shipped;
mod store;

pub use self::edition::Edition;
pub use self::store::GeoStore;
pub use self::store::Reload;

use self::edition::Loaded;

/// A set of database files that answer as one.
pub struct GeoIp {
    /// Asked in this order; the first that knows a place answers.
    files: Vec<Loaded>,
}

/// What is known about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Answer {
    /// The kind of address.
    pub class: Class,
    /// Where it is; `None` if not known: the node's own region stands in then.
    ///
    /// The country is absent where it would only be that of whoever registered the
    /// address, or of a satellite's ground station: a wrong country is worse law than none.
    pub place: Option<Place>,
}

/// How far the age of the files lets them be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freshness {
    /// Up to date.
    Fresh,
    /// Older than [`Freshness::AGEING`]: time to fetch. MaxMind's licence asks for no more
    /// than 30 days; DB-IP publishes monthly.
    Ageing,
    /// Older than [`Freshness::STALE`]: no answer counts for more than its country.
    Stale,
}

impl Freshness {
    /// The age from which an operator is warned.
    pub const AGEING: Duration = Duration::from_hours(35 * 24);
    /// The age from which cities are not believed.
    pub const STALE: Duration = Duration::from_hours(90 * 24);

    /// Returns what `age` means.
    pub fn of(age: Duration) -> Self {
        match age {
            _ if age >= Self::STALE => Self::Stale,
            _ if age >= Self::AGEING => Self::Ageing,
            _ => Self::Fresh,
        }
    }
}

/// Why a set of files is not used. Whatever was in use before stays in use.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// No file was named.
    #[error("no GeoIP file is named; name one, or none at all to use the embedded countries")]
    NoFile,
    /// Too many files were named.
    #[error("{0} GeoIP files are named, at most {max} are opened", max = GeoIp::FILES_MAX)]
    TooManyFiles(usize),
    /// There is no such file.
    #[error("{file}: not found; correct the path, or fetch the file with geo/fetch")]
    Missing {
        /// The file.
        file: String,
    },
    /// The file cannot be read.
    #[error("{file}: cannot be read; check that it is a file and its permissions")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is larger than any GeoIP database.
    #[error("{file}: larger than {max} bytes, so not a GeoIP database", max = GeoIp::BYTES_MAX)]
    TooLarge {
        /// The file.
        file: String,
    },
    /// The file is an archive.
    #[error("{file}: is packed; unpack it with {tool}")]
    Packed {
        /// The file.
        file: String,
        /// The tool that unpacks it.
        tool: &'static str,
    },
    /// The file is a web page: the download failed.
    #[error("{file}: is a web page, not a database; the download failed, fetch it again")]
    WebPage {
        /// The file.
        file: String,
    },
    /// The file is not an MMDB file, or a damaged one.
    #[error("{file}: not an MMDB file, or damaged ({reason}); fetch it again")]
    Damaged {
        /// The file.
        file: String,
        /// What the reader says.
        reason: String,
    },
    /// The file is a database of something else.
    #[error("{file}: its type {kind:?} holds no places; use a City or Country edition")]
    WrongKind {
        /// The file.
        file: String,
        /// The type it gives itself.
        kind: String,
    },
    /// The file contradicts what is known of old networks.
    #[error(
        "{file}: puts {wrong} of {n_canaries} well-known networks into a wrong country or none; \
         fetch it again or use another edition"
    )]
    Canary {
        /// The file.
        file: String,
        /// How many it gets wrong.
        wrong: usize,
        /// How many were asked.
        n_canaries: usize,
    },
    /// The file is dated in the future.
    #[error("{file}: built {days} days in the future; set this machine's clock, or fetch it again")]
    Future {
        /// The file.
        file: String,
        /// How far.
        days: u64,
    },
    /// The file is older than the one in use.
    #[error("{file}: older than the one in use; reload by force to go back")]
    Older {
        /// The file.
        file: String,
    },
}

impl GeoIp {
    /// The most files of a set: city and country, split by family, of two vendors.
    pub const FILES_MAX: usize = 8;
    /// The largest file: the largest known edition has about 400 MB.
    pub const BYTES_MAX: u64 = 1 << 30;

    /// Opens the country database that ships with the program. The first call unpacks it
    /// (8 MB), later ones share it.
    pub fn embedded() -> Result<Self, GeoError> {
        let bytes = shipped::bytes()?;
        Ok(Self { files: vec![Loaded::check("embedded".to_owned(), bytes, None)?] })
    }

    /// Opens and checks an operator's files; blocks for the time it takes to read them.
    /// `wall` is the time since the Unix epoch: a file may not be dated after it.
    pub fn open(paths: &[PathBuf], wall: Duration) -> Result<Self, GeoError> {
        match paths.len() {
            0 => return Err(GeoError::NoFile),
            n if n > Self::FILES_MAX => return Err(GeoError::TooManyFiles(n)),
            _ => {}
        }
        let files = paths.iter().map(|path| Loaded::open(path, wall));
        Ok(Self { files: files.collect::<Result<_, _>>()? })
    }

    /// A set that knows no place.
    pub fn nothing() -> Self {
        Self { files: Vec::new() }
    }

    /// Returns what is known of `ip`. Takes a few microseconds and never fails: a damaged
    /// record is a place that is not known.
    pub fn lookup(&self, ip: IpAddr) -> Answer {
        let class = address::classify(ip);
        if !class.is_located() {
            return Answer { class, place: None };
        }
        let ip = address::canonical(ip);
        let found = self.files.iter().find_map(|it| it.record(ip).ok()?.place());
        let is_elsewhere = matches!(class, Class::Anycast | Class::Satellite);
        let place = match found {
            Some(it) if is_elsewhere => {
                let confidence = it.confidence.min(Confidence::Country);
                Some(Place { country: None, confidence, ..it })
            }
            found => found,
        };
        Answer { class, place }
    }

    /// Goes through the files, in the order they are asked.
    pub fn editions(&self) -> impl Iterator<Item = &Edition> {
        self.files.iter().map(|it| &it.edition)
    }

    /// Returns the age of the oldest file at `wall`; `None` without files.
    pub fn age(&self, wall: Duration) -> Option<Duration> {
        let oldest = self.editions().map(|it| it.built).min()?;
        Some(wall.saturating_sub(oldest))
    }
}

impl std::fmt::Debug for GeoIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.editions()).finish()
    }
}

#[cfg(test)]
mod tests;
