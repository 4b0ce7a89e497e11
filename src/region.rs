//! The regions: parsed from `regions/`, checked as a whole, and asked for the nearest.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::geo::Point;
use crate::id::RegionId;
use crate::unit::Country;

mod embedded;

/// A named place where nodes run. The schema stands in `regions/README.md`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The code, such as `FRA`; the file is named after it.
    #[serde(rename = "code")]
    pub id: RegionId,
    /// The name, for people.
    pub name: String,
    /// The centre of the city.
    pub point: Point,
    /// The country whose law holds here.
    pub country: Country,
    /// Jurisdiction tags; `eu` and `eea` agree with the country, the rest are the operator's.
    pub tags: Vec<String>,
    /// Regions with a good course to this one; always mutual.
    pub neighbours: Vec<RegionId>,
}

/// Every region, in the order of their ids.
#[derive(Clone, Debug)]
pub struct RegionMap {
    /// Sorted by id, never empty, at most [`RegionMap::MAX`].
    regions: Vec<Region>,
}

/// Why a set of region files is not a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// There is no file at all.
    #[error("no region file was found; a map needs at least one regions/CODE.toml")]
    Empty,
    /// More files than ranking cells allow.
    #[error("{0} region files, at most {max} are allowed; remove some", max = RegionMap::MAX)]
    TooMany(usize),
    /// The text is not a region.
    #[error("{file}: {reason}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// The text is a region that cannot be.
    #[error("{file}: {flaw}")]
    Flawed {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// What is wrong with one region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The file is not named after the region in it.
    #[error("describes {0}; name the file {0}.toml")]
    FileName(RegionId),
    /// Two files describe it.
    #[error("{0} is described twice; remove one file")]
    Twice(RegionId),
    /// The name is empty or too long.
    #[error("name has 1 to {} characters", Region::NAME_MAX)]
    Name,
    /// The point is 0, 0: what a forgotten point looks like, and open sea.
    #[error("point is 0, 0, which is open sea; give the city's latitude and longitude")]
    NullIsland,
    /// A list has too many entries.
    #[error("tags and neighbours have at most {} entries each", Region::LIST_MAX)]
    ListTooLong,
    /// A residency tag contradicts the country.
    #[error("tag {tag:?} and country {country} disagree; see the table in regions/README.md")]
    Tag {
        /// The tag.
        tag: &'static str,
        /// The country.
        country: Country,
    },
    /// A neighbour has no file.
    #[error("neighbour {0} does not exist; add its file or remove it here")]
    NoNeighbour(RegionId),
    /// A neighbour is the region itself, or does not name this region in turn.
    #[error("neighbour {0} does not name this region; neighbours are mutual")]
    OneWay(RegionId),
}

impl Region {
    /// The longest name, in characters: a column of a table.
    pub const NAME_MAX: usize = 64;
    /// The most tags, and the most neighbours: a neighbour costs gossip.
    pub const LIST_MAX: usize = 16;

    fn flaw(&self, file: &str) -> Option<Flaw> {
        if file.strip_suffix(".toml") != Some(self.id.as_str()) {
            return Some(Flaw::FileName(self.id));
        }
        if !(1..=Self::NAME_MAX).contains(&self.name.chars().count()) {
            return Some(Flaw::Name);
        }
        if self.point.lat() == 0.0 && self.point.lon() == 0.0 {
            return Some(Flaw::NullIsland);
        }
        if self.tags.len() > Self::LIST_MAX || self.neighbours.len() > Self::LIST_MAX {
            return Some(Flaw::ListTooLong);
        }
        let lawful = [("eu", is_eu(self.country)), ("eea", is_eea(self.country))];
        let mut tags = lawful.into_iter();
        let (tag, _) = tags.find(|(tag, holds)| self.tags.iter().any(|it| it == tag) != *holds)?;
        Some(Flaw::Tag { tag, country: self.country })
    }
}

impl RegionMap {
    /// The most regions: 85 times three confidence classes are 255 cells of at most 256.
    pub const MAX: usize = 85;

    /// Parses and checks region files, given as (file name, text).
    pub fn parse<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, RegionError> {
        let mut regions = BTreeMap::new();
        let mut n_files = 0;
        for (file, text) in files {
            n_files += 1;
            if n_files > Self::MAX {
                continue;
            }
            let region: Region = toml::from_str(text).map_err(|error| RegionError::Syntax {
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
            let flawed = |flaw| RegionError::Flawed { file: file.to_owned(), flaw };
            if let Some(flaw) = region.flaw(file) {
                return Err(flawed(flaw));
            }
            let id = region.id;
            if regions.insert(id, region).is_some() {
                return Err(flawed(Flaw::Twice(id)));
            }
        }
        if n_files > Self::MAX {
            return Err(RegionError::TooMany(n_files));
        }
        if regions.is_empty() {
            return Err(RegionError::Empty);
        }
        check_neighbours(&regions)?;
        Ok(Self { regions: regions.into_values().collect() })
    }

    /// Parses the regions that ship with the program; a test proves that they are a map.
    pub fn embedded() -> Result<Self, RegionError> {
        Self::parse(embedded::FILES.iter().copied())
    }

    /// Returns one region.
    pub fn get(&self, id: RegionId) -> Option<&Region> {
        Some(&self.regions[usize::from(self.index_of(id)?)])
    }

    /// Returns where a region stands in [`RegionMap::iter`]; below [`RegionMap::MAX`].
    pub fn index_of(&self, id: RegionId) -> Option<u8> {
        let at = self.regions.binary_search_by_key(&id, |it| it.id).ok()?;
        u8::try_from(at).ok()
    }

    /// Returns the region nearest to `point`; of equally near ones, the first by id.
    pub fn nearest(&self, point: &Point) -> &Region {
        let mut nearest = &self.regions[0];
        let mut least_m = nearest.point.distance_m(point);
        for region in &self.regions[1..] {
            let distance_m = region.point.distance_m(point);
            if distance_m < least_m {
                (nearest, least_m) = (region, distance_m);
            }
        }
        nearest
    }

    /// Goes through the regions in the order of their ids.
    pub fn iter(&self) -> std::slice::Iter<'_, Region> {
        self.regions.iter()
    }

    /// Returns how many regions there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a map is never empty")]
    pub fn len(&self) -> usize {
        self.regions.len()
    }
}

impl<'a> IntoIterator for &'a RegionMap {
    type Item = &'a Region;
    type IntoIter = std::slice::Iter<'a, Region>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Tells whether a country code is territory of the European Union, where its data
/// protection law holds: the 27 members, and the parts of Finland and France that have a
/// code of their own. GL FO NC PF BL PM are not. State of November 2026.
pub fn is_eu(country: Country) -> bool {
    EU.contains(&country.as_str())
}

/// Tells whether a country code is territory of the European Economic Area: the European
/// Union, Iceland, Liechtenstein and Norway. State of November 2026.
pub fn is_eea(country: Country) -> bool {
    is_eu(country) || matches!(country.as_str(), "IS" | "LI" | "NO")
}

fn check_neighbours(regions: &BTreeMap<RegionId, Region>) -> Result<(), RegionError> {
    for region in regions.values() {
        let mut seen = BTreeSet::new();
        for id in &region.neighbours {
            let flaw = match regions.get(id) {
                None => Flaw::NoNeighbour(*id),
                Some(it) if it.id == region.id || !it.neighbours.contains(&region.id) => {
                    Flaw::OneWay(*id)
                }
                Some(_) if !seen.insert(*id) => Flaw::Twice(*id),
                Some(_) => continue,
            };
            return Err(RegionError::Flawed { file: format!("{}.toml", region.id), flaw });
        }
    }
    Ok(())
}

/// A list of our own, because most databases carry no flag, and an old flag is wrong law.
const EU: [&str; 34] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT",
    "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK", // the 27 members
    "AX", "GF", "GP", "MF", "MQ", "RE", "YT", // their parts with own codes
];

#[cfg(test)]
mod tests;
