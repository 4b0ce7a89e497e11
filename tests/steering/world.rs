//! Measured cities: where orchestrators stand, where clients are, and the courses between.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use portolan::geo::Point;
use portolan::unit::Micros;

use super::draws::Course;

/// A city of the data.
#[derive(Clone, Debug)]
pub(crate) struct City {
    /// Its name there.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) point: Point,
}

/// What the replay runs on.
#[derive(Debug)]
pub(crate) struct World {
    /// One orchestrator and one node stand in each.
    pub(crate) sites: Vec<City>,
    /// One client is in each.
    pub(crate) clients: Vec<City>,
    /// From each client to each site.
    pub(crate) to_site: Vec<Vec<Course>>,
    /// From each site to each other, where measured.
    pub(crate) between: Vec<Vec<Option<Course>>>,
    /// How long the work takes, the same at every orchestrator.
    pub(crate) service: Micros,
    /// Whether the sites are all of [`LEADERBOARD`], by name.
    pub(crate) is_leaderboard: bool,
}

struct Table {
    points: BTreeMap<String, Point>,
    courses: BTreeMap<(String, String), Course>,
}

impl World {
    /// Reads `rtt.csv` of `directory`.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("rtt.csv");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let every = Table::parse(&text)?;
        let by_name = LEADERBOARD.map(|(name, ..)| every.city(name));
        let is_leaderboard = by_name.iter().all(Option::is_some);
        let sites = match is_leaderboard {
            true => by_name.into_iter().flatten().collect(),
            false => every.stand_ins()?,
        };
        let courses_to_all = |from: &str| {
            let courses = sites.iter().map(|site: &City| every.course(from, &site.name));
            courses.collect::<Option<Vec<Course>>>()
        };
        let is_site = |name: &str| sites.iter().any(|site| site.name == name);
        let (clients, to_site) = every
            .points
            .iter()
            .filter(|(name, _)| !is_site(name))
            .filter_map(|(name, point)| {
                Some((City { name: name.clone(), point: *point }, courses_to_all(name)?))
            })
            .unzip();
        let between = sites
            .iter()
            .map(|from| sites.iter().map(|to| every.course(&from.name, &to.name)).collect())
            .collect();
        Ok(Self { sites, clients, to_site, between, service: Micros::ZERO, is_leaderboard })
    }
}

impl Table {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut table = Self { points: BTreeMap::new(), courses: BTreeMap::new() };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [from, from_lat, from_lon, to, to_lat, to_lon, mean, least, most, deviation, _] =
                fields[..]
            else {
                anyhow::bail!("{line:?} does not have eleven fields");
            };
            table.points.insert(from.to_owned(), Point::new(from_lat.parse()?, from_lon.parse()?)?);
            table.points.insert(to.to_owned(), Point::new(to_lat.parse()?, to_lon.parse()?)?);
            let mean = mean.parse()?;
            let or = |field: &str, other: f64| match field {
                "" => Ok(other),
                field => field.parse(),
            };
            let course = Course {
                mean,
                least: or(least, mean - JITTER_MS)?,
                most: or(most, f64::INFINITY)?,
                deviation: or(deviation, JITTER_MS)?,
            };
            table.courses.insert((from.to_owned(), to.to_owned()), course);
        }
        Ok(table)
    }

    fn city(&self, name: &str) -> Option<City> {
        Some(City { name: name.to_owned(), point: *self.points.get(name)? })
    }

    fn course(&self, from: &str, to: &str) -> Option<Course> {
        self.courses.get(&(from.to_owned(), to.to_owned())).copied()
    }

    /// Returns, for each place of the leaderboard in turn, the nearest city not yet taken
    /// within [`STAND_IN_M`]; half of the cities at most, so that clients are left.
    fn stand_ins(&self) -> anyhow::Result<Vec<City>> {
        let mut sites: Vec<City> = Vec::new();
        for (_, lat, lon) in LEADERBOARD {
            let wanted = Point::new(lat, lon)?;
            let free =
                self.points.iter().filter(|(name, _)| sites.iter().all(|it| it.name != **name));
            let near = free
                .map(|(name, point)| (point.distance_m(&wanted), name))
                .filter(|(metres, _)| *metres <= STAND_IN_M)
                .min();
            if let Some((_, name)) = near
                && sites.len() < self.points.len() / 2
            {
                sites.extend(self.city(name));
            }
        }
        anyhow::ensure!(sites.len() >= 5, "fewer than five cities lie near the leaderboard's");
        Ok(sites)
    }
}

/// The jitter of a course whose data give none: the median of the public Internet, in
/// milliseconds.
const JITTER_MS: f64 = 0.65;
/// How far from a place of the leaderboard a city may stand in for it.
const STAND_IN_M: u32 = 1_000_000;
/// Where the Livepeer leaderboard tests from (two of its codes are Atlanta); Washington
/// stands for ASH.
const LEADERBOARD: [(&str, f64, f64); 20] = [
    ("Atlanta", 33.7490, -84.3880),
    ("Chicago", 41.8781, -87.6298),
    ("Frankfurt", 50.1109, 8.6821),
    ("Houston", 29.7604, -95.3698),
    ("London", 51.5074, -0.1278),
    ("Los Angeles", 34.0522, -118.2437),
    ("Madrid", 40.4168, -3.7038),
    ("Miami", 25.7617, -80.1918),
    ("Moscow", 55.7558, 37.6173),
    ("Washington", 38.9072, -77.0369),
    ("New York", 40.7128, -74.0060),
    ("Prague", 50.0755, 14.4378),
    ("San Jose", 37.3382, -121.8863),
    ("Sao Paulo", -23.5505, -46.6333),
    ("Seattle", 47.6062, -122.3321),
    ("Singapore", 1.3521, 103.8198),
    ("Stockholm", 59.3293, 18.0686),
    ("Sydney", -33.8688, 151.2093),
    ("Tokyo", 35.6762, 139.6503),
    ("Toronto", 43.6532, -79.3832),
];
