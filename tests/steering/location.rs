//! How wrong a database is about where a client is.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use portolan::geo::{Confidence, Point};
use portolan::geoip::GeoIp;

use super::draws::Draws;

/// A way of knowing where clients are, with the errors it makes.
#[derive(Debug)]
pub(crate) struct Location {
    /// `exact`, `city` or `country`.
    pub(crate) name: &'static str,
    /// What its answers are taken for.
    pub(crate) confidence: Confidence,
    errors: Errors,
}

#[derive(Debug)]
enum Errors {
    None,
    /// Distances in metres and bearings in radians from the true place to the answer, one
    /// drawn for each client.
    Measured(Vec<(f64, f64)>),
    /// Distances in kilometres by share, any bearing.
    Quantiles(&'static [(f64, f64)]),
}

impl Location {
    /// Every client is where it is thought to be.
    pub(crate) fn exact() -> Self {
        Self { name: "exact", confidence: Confidence::City, errors: Errors::None }
    }

    /// A city database with the documented errors of a good one.
    pub(crate) fn documented_city() -> Self {
        let errors = Errors::Quantiles(&GEOLITE2_CITY);
        Self { name: "city", confidence: Confidence::City, errors }
    }

    /// A database held against addresses of declared place: `truth` is a CSV file that
    /// begins with the columns ip, lat and lon. Addresses without an answer are left out.
    pub(crate) fn measured(
        name: &'static str,
        confidence: Confidence,
        database: &GeoIp,
        truth: &Path,
    ) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(truth).with_context(|| truth.display().to_string())?;
        let mut errors = Vec::new();
        for line in text.lines().skip(1) {
            let mut fields = line.split(',');
            let mut field = || fields.next().context("a line is cut short");
            let ip: IpAddr = field()?.parse()?;
            let place = Point::new(field()?.parse()?, field()?.parse()?)?;
            if let Some(answer) = database.lookup(ip).place {
                let metres = f64::from(place.distance_m(&answer.point));
                errors.push((metres, bearing(&place, &answer.point)));
            }
        }
        anyhow::ensure!(!errors.is_empty(), "no address of {} is known", truth.display());
        Ok(Self { name, confidence, errors: Errors::Measured(errors) })
    }

    /// Returns where a client at `place` is thought to be.
    pub(crate) fn of(&self, place: &Point, draws: &mut Draws) -> anyhow::Result<Point> {
        let (metres, bearing) = match &self.errors {
            Errors::None => return Ok(*place),
            Errors::Measured(errors) => errors[draws.below(errors.len())],
            Errors::Quantiles(by_share) => {
                (quantile(by_share, draws.unit()) * 1000.0, draws.unit() * std::f64::consts::TAU)
            }
        };
        moved(place, metres, bearing)
    }
}

/// Returns the kilometres at `share`, straight between the logarithms of those given.
fn quantile(by_share: &[(f64, f64)], share: f64) -> f64 {
    let above = by_share.partition_point(|it| it.0 < share).clamp(1, by_share.len() - 1);
    let ((low, from), (high, to)) = (by_share[above - 1], by_share[above]);
    let part = (share - low) / (high - low);
    (from.ln() + (to.ln() - from.ln()) * part).exp()
}

fn bearing(from: &Point, to: &Point) -> f64 {
    let (phi1, phi2) = (from.lat().to_radians(), to.lat().to_radians());
    let delta = (to.lon() - from.lon()).to_radians();
    let x = phi1.cos() * phi2.sin() - phi1.sin() * phi2.cos() * delta.cos();
    (delta.sin() * phi2.cos()).atan2(x)
}

fn moved(from: &Point, metres: f64, bearing: f64) -> anyhow::Result<Point> {
    let (phi, arc) = (from.lat().to_radians(), metres / EARTH_RADIUS_M);
    let sine = phi.sin() * arc.cos() + phi.cos() * arc.sin() * bearing.cos();
    let lat = sine.clamp(-1.0, 1.0).asin();
    let y = bearing.sin() * arc.sin() * phi.cos();
    let lon = from.lon() + y.atan2(arc.cos() - phi.sin() * sine).to_degrees();
    Ok(Point::new(lat.to_degrees().clamp(-90.0, 90.0), (lon + 540.0).rem_euclid(360.0) - 180.0)?)
}

/// Errors of GeoLite2-City, September 2026, in kilometres by share, on addresses of declared
/// place: median 1.1, 81.5 % within 100, 90 % within 500. How the last tenth goes on is not
/// documented; the worst is taken to be 10,000 km off.
const GEOLITE2_CITY: [(f64, f64); 5] =
    [(0.0, 0.1), (0.5, 1.1), (0.815, 100.0), (0.9, 500.0), (1.0, 10_000.0)];
const EARTH_RADIUS_M: f64 = 6_371_008.8;
