//! Points on the globe, distance, and the round trip distance lets one expect.
//!
//! Everything a request needs is integer arithmetic: a point is a unit vector of three
//! 31-bit integers made once, with `libm`, so that every machine makes the same bits.

use std::sync::LazyLock;

use crate::unit::{Country, Micros};

/// A place on the globe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Unit vector, each axis scaled by 2^30.
    axes: [i32; 3],
    /// Latitude and longitude in microdegrees, for people and for region files.
    micro_degrees: (i32, i32),
}

/// Why two numbers are not a [`Point`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("latitude must be within -90..90 and longitude within -180..180 degrees")]
pub struct BadPoint;

impl Point {
    /// Makes a point from degrees (WGS 84); refuses NaN and anything out of range.
    pub fn new(lat: f64, lon: f64) -> Result<Self, BadPoint> {
        if !((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)) {
            return Err(BadPoint);
        }
        let (phi, theta) = (lat.to_radians(), lon.to_radians());
        let ring = libm::cos(phi);
        let axes = [ring * libm::cos(theta), ring * libm::sin(theta), libm::sin(phi)];
        let axes = axes.map(|axis| libm::round(axis * SCALE) as i32);
        let micro = |degrees: f64| libm::round(degrees * 1e6) as i32;
        Ok(Self { axes, micro_degrees: (micro(lat), micro(lon)) })
    }

    /// Returns the latitude in degrees.
    pub fn lat(&self) -> f64 {
        f64::from(self.micro_degrees.0) / 1e6
    }

    /// Returns the longitude in degrees.
    pub fn lon(&self) -> f64 {
        f64::from(self.micro_degrees.1) / 1e6
    }

    /// Returns the great-circle distance in metres, within 0.1 %.
    pub fn distance_m(&self, other: &Self) -> u32 {
        // Chord squared, each axis scaled by 2^30; at most (2 * 2^30)^2 = 2^62.
        let square = |i: usize| {
            let delta = i64::from(self.axes[i]) - i64::from(other.axes[i]);
            (delta * delta) as u64
        };
        let squares = square(0) + square(1) + square(2);
        // IEEE 754 fixes a square root to the bit, and it takes a third of an integer one.
        let chord = ((squares as f64).sqrt() as u64).min(CHORD_MAX);
        let table = &*ARC_M;
        let (at, rest) = ((chord >> STEP_BITS) as usize, chord & (STEP - 1));
        let (low, high) = (u64::from(table[at]), u64::from(table[at + 1]));
        (low + (((high - low) * rest) >> STEP_BITS)) as u32
    }
}

impl serde::Serialize for Point {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        [self.lat(), self.lon()].serialize(to)
    }
}

impl<'de> serde::Deserialize<'de> for Point {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let [lat, lon] = <[f64; 2]>::deserialize(from)?;
        Self::new(lat, lon).map_err(serde::de::Error::custom)
    }
}

/// Returns the round trip to expect over `metres` of public Internet: 15 ms + 17.2 ms per
/// 1,000 km (least absolute deviation over 20,365 measured city pairs).
pub fn expected_rtt(metres: u32) -> Micros {
    Micros(15_000 + u64::from(metres) * 172 / 10_000)
}

/// Returns the least round trip physics allows over `metres`: light in fibre needs about
/// 10 ms per 1,000 km there and back. A faster sample means the place is wrong.
pub fn fibre_floor(metres: u32) -> Micros {
    Micros(u64::from(metres) / 100)
}

/// How far a place may be trusted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Nothing is known; the node's own region stands in.
    Unknown,
    /// No more than a country is believed: its population-weighted centre stands in, or a
    /// finer guess that is not trusted.
    Country,
    /// A city, or a point somebody declared.
    City,
}

/// What is known of where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The best guess.
    pub point: Point,
    /// The country, where one is known; a guessed point may come without one.
    pub country: Option<Country>,
    /// How far to trust the above.
    pub confidence: Confidence,
}

/// Mean radius of the Earth, in metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;
const SCALE: f64 = (1_u64 << 30) as f64;
/// The table steps over the chord in 2^13 steps of 2^18.
const STEP_BITS: u32 = 18;
const STEP: u64 = 1 << STEP_BITS;
const CHORD_MAX: u64 = (2 << 30) - 1;

/// Arc length in metres by chord.
static ARC_M: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let arc = |step: u64| {
        let half_chord = ((step * STEP) as f64 / SCALE / 2.0).min(1.0);
        libm::round(2.0 * libm::asin(half_chord) * EARTH_RADIUS_M) as u32
    };
    (0..=(CHORD_MAX >> STEP_BITS) + 1).map(arc).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: (f64, f64), b: (f64, f64), km: f64) {
        let (a, b) = (Point::new(a.0, a.1).unwrap(), Point::new(b.0, b.1).unwrap());
        let found = f64::from(a.distance_m(&b)) / 1000.0;
        assert!((found - km).abs() <= km * 0.002 + 0.05, "{found} km, expected {km}");
        assert_eq!(a.distance_m(&b), b.distance_m(&a));
    }

    #[test]
    fn distances_hold_where_naive_geometry_breaks() {
        check((0.0, 0.0), (0.0, 0.0), 0.0);
        check((0.0, 0.0), (0.0, 180.0), 20_015.1);
        check((90.0, 10.0), (90.0, -170.0), 0.0);
        // Across the antimeridian: Fiji, 358.4 degrees apart on paper.
        check((-17.8, 179.2), (-18.0, -178.7), 223.0);
        check((50.1109, 8.6821), (40.7128, -74.0060), 6203.7);
    }

    #[test]
    fn what_is_not_a_place_is_refused() {
        for (lat, lon) in [(f64::NAN, 0.0), (91.0, 0.0), (0.0, 190.0), (f64::INFINITY, 0.0)] {
            assert_eq!(Point::new(lat, lon), Err(BadPoint));
        }
    }

    #[test]
    fn expected_round_trips_stay_above_light_in_fibre() {
        for metres in [0, 1_000, 500_000, 5_000_000, 20_000_000] {
            assert!(expected_rtt(metres) > fibre_floor(metres));
        }
        assert_eq!(expected_rtt(1_000_000), Micros(32_200));
    }
}
