//! The centre of a country's population, for answers that know no more than the country.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::geo::Point;
use crate::unit::Country;

/// Returns the population-weighted centre; `None` for territories without a city, such as
/// AQ, and for codes that are no country.
pub(super) fn of(country: Country) -> Option<Point> {
    CENTRES.get(&country).copied()
}

/// Tells whether a code names a country. Databases also use codes for "somewhere in
/// Europe", "a proxy" and the like.
pub(super) fn is_country(country: Country) -> bool {
    !matches!(country.as_str(), "EU" | "AP" | "XX" | "ZZ")
}

/// A code or a point that does not parse is left out; a test counts them.
static CENTRES: LazyLock<BTreeMap<Country, Point>> = LazyLock::new(|| {
    let raw: BTreeMap<String, [f64; 2]> =
        serde_json::from_str(include_str!("../../geo/country-centres.json")).unwrap_or_default();
    let read = |(code, [lat, lon]): (String, [f64; 2])| {
        Some((Country::parse(&code)?, Point::new(lat, lon).ok()?))
    };
    raw.into_iter().filter_map(read).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn country(text: &str) -> Country {
        Country::parse(text).unwrap()
    }

    #[test]
    fn every_country_with_a_city_has_a_centre() {
        assert_eq!(CENTRES.len(), 244);
        assert!(of(country("XK")).is_some() && of(country("AQ")).is_none());
        let fiji = of(country("FJ")).unwrap();
        assert!(fiji.lat() < -15.0 && fiji.lon() > 175.0);
    }

    #[test]
    fn a_code_for_somewhere_is_not_a_country() {
        assert!(is_country(country("AQ")) && is_country(country("DE")));
        assert!(!is_country(country("EU")) && !is_country(country("ZZ")));
    }
}
