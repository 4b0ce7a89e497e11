//! One record of a database, whatever its schema.
//!
//! Vendors nest (`country.iso_code`, `location.latitude`) or do not (`country_code`,
//! `latitude`), write numbers as `f32`, `f64` or text, write "" for "not known", and put a
//! code, a name or a map under `country`. So nothing is required and nothing has a fixed
//! type; what cannot be understood is absent.

use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;

use super::centre;
use crate::geo::Confidence;
use crate::geo::Place;
use crate::geo::Point;
use crate::unit::Country;

mod value;

use self::value::Value;

/// What a record says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    country: Option<Country>,
    /// Where the network is registered: in a third of them another country than `country`.
    registered: Option<Country>,
    lat: Option<f64>,
    lon: Option<f64>,
    names_city: bool,
    radius_km: Option<f64>,
}

impl Record {
    /// Returns the country that the record stands for, for checking a file.
    pub(super) fn any_country(&self) -> Option<Country> {
        self.country.or(self.registered)
    }

    /// Tells whether the record has anything to do with places.
    pub(super) fn is_geographic(&self) -> bool {
        self.any_country().is_some() || self.point().is_some()
    }

    /// Tells whether the record knows a city.
    pub(super) fn has_city(&self) -> bool {
        self.names_city && self.point().is_some()
    }

    /// Returns the place the record leads to, and how far to trust it.
    pub(super) fn place(&self) -> Option<Place> {
        let country = self.country;
        let is_near = self.radius_km.map(|it| it <= RADIUS_TRUSTED_KM);
        let point = self.point();
        if let Some(point) = point.filter(|_| self.names_city && is_near != Some(false)) {
            return Some(Place { point, country, confidence: Confidence::City });
        }
        // Without a city the point is mostly some middle of the country by area; that of
        // its people is the better guess, unless the vendor vouches for a small radius.
        let near = point.filter(|_| is_near == Some(true));
        let point = match country {
            Some(code) => near.or_else(|| centre::of(code)).or(point),
            None => near.or_else(|| self.registered.and_then(centre::of)),
        };
        point.map(|point| Place { point, country, confidence: Confidence::Country })
    }

    /// Never 0, 0: that is how some files write "not known", and it is open sea.
    fn point(&self) -> Option<Point> {
        let (lat, lon) = (self.lat?, self.lon?);
        let is_null_island = lat.abs() < NULL_ISLAND && lon.abs() < NULL_ISLAND;
        Point::new(lat, lon).ok().filter(|_| !is_null_island)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a record that is a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut record = Record::default();
        // Under `country` a code may stand, but a name mostly: it gives way to a real code.
        let mut loose_code = None;
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "country_code" => record.country = map.next_value::<Value<'_>>()?.country(),
                "country" => loose_code = map.next_value::<Value<'_>>()?.country(),
                "registered_country" => {
                    record.registered = map.next_value::<Value<'_>>()?.country();
                }
                "city" => record.names_city = map.next_value::<Value<'_>>()?.is_named(),
                "location" => {
                    let fields = map.next_value::<Value<'_>>()?.fields();
                    record.lat = record.lat.or(fields.lat);
                    record.lon = record.lon.or(fields.lon);
                    record.radius_km = fields.radius_km;
                }
                "latitude" | "lat" => record.lat = map.next_value::<Value<'_>>()?.number(),
                "longitude" | "lng" | "lon" => record.lon = map.next_value::<Value<'_>>()?.number(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        record.country = record.country.or(loose_code);
        Ok(record)
    }
}

/// A radius of 20 km covers the truth in 82 % of cases, one of 1,000 km in 37 %: a rank, not
/// a bound. 200 km is the last below the sizes of states and countries.
const RADIUS_TRUSTED_KM: f64 = 200.0;
/// In degrees: about a kilometre.
const NULL_ISLAND: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str) -> Option<Country> {
        Country::parse(code)
    }

    #[track_caller]
    fn check(record: Record, expected: Option<(Confidence, Option<Country>)>) {
        let place = record.place();
        assert_eq!(place.map(|it| (it.confidence, it.country)), expected);
    }

    fn at(lat: f64, lon: f64) -> Record {
        Record { lat: Some(lat), lon: Some(lon), country: country("US"), ..Record::default() }
    }

    #[test]
    fn a_city_is_believed_unless_its_radius_is_large() {
        let us = country("US");
        let city = |radius_km| Record { names_city: true, radius_km, ..at(40.0, -74.0) };
        check(city(None), Some((Confidence::City, us)));
        check(city(Some(200.0)), Some((Confidence::City, us)));
        check(city(Some(201.0)), Some((Confidence::Country, us)));
        check(at(40.0, -74.0), Some((Confidence::Country, us)));
    }

    #[test]
    fn without_a_city_the_peoples_centre_stands_in_unless_the_radius_is_small() {
        let kansas = at(37.751, -97.822);
        assert_eq!(kansas.place().map(|it| it.point), centre::of(country("US").unwrap()));
        let state = Record { radius_km: Some(100.0), ..at(44.0, -120.0) };
        assert_eq!(state.place().map(|it| it.point), Point::new(44.0, -120.0).ok());
    }

    #[test]
    fn a_registered_country_gives_a_guess_and_no_law() {
        let registered = Record { registered: country("AU"), ..Record::default() };
        check(registered, Some((Confidence::Country, None)));
        check(Record { registered: country("AQ"), ..Record::default() }, None);
    }

    #[test]
    fn a_point_that_is_none_leaves_the_country() {
        for (lat, lon) in [(0.0, 0.0), (f64::NAN, 1.0), (91.0, 0.0), (0.001, -0.001)] {
            let record = Record { names_city: true, ..at(lat, lon) };
            check(record, Some((Confidence::Country, country("US"))));
            check(Record { country: country("AQ"), ..record }, None);
            check(Record { country: None, ..record }, None);
        }
        check(Record::default(), None);
    }
}
