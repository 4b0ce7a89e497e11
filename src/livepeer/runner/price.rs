//! The price of a runner, exact.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A price in whole wei per unit; a fraction of a wei is rounded up, since prices are
/// compared with ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Wei per unit.
    pub wei: u128,
    /// What is paid for.
    pub unit: PriceUnit,
}

/// What a price is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PriceUnit {
    /// Each second of the session.
    Seconds,
    /// Each second of 1280 × 720 pixels at 30 frames.
    PixelSeconds720p,
    /// The whole session.
    Fixed,
    /// Each hour of the session.
    Hour,
}

impl Price {
    /// Reads `{"price", "currency", "unit"}`, the price as a JSON number or text; `None` if
    /// it is negative, not in wei, of an unknown unit or too large for 128 bits.
    pub fn read(raw: &RawValue) -> Option<Self> {
        let raw: RawPrice<'_> = serde_json::from_str(raw.get()).ok()?;
        let unit = match raw.unit.trim().to_ascii_lowercase().as_str() {
            "seconds" => PriceUnit::Seconds,
            "720p" | "720p-pixel-seconds" => PriceUnit::PixelSeconds720p,
            "fixed" => PriceUnit::Fixed,
            "hour" => PriceUnit::Hour,
            _ => return None,
        };
        if !matches!(raw.currency.trim().to_ascii_lowercase().as_str(), "wei" | "") {
            return None;
        }
        let text = raw.price.get();
        let wei =
            whole(text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text))?;
        Some(Self { wei, unit })
    }
}

#[derive(Deserialize)]
struct RawPrice<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(default)]
    currency: String,
    unit: String,
}

/// Reads a decimal number such as `1200`, `0.5` or `1.2e3` and rounds it up to an integer,
/// without a floating-point number in between.
fn whole(text: &str) -> Option<u128> {
    let text = text.trim();
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = int.len() + fraction.len();
    let legal = int.bytes().chain(fraction.bytes()).all(|it| it.is_ascii_digit());
    if digits == 0 || digits > MAX_DIGITS || !legal || exponent.unsigned_abs() > MAX_EXPONENT {
        return None;
    }
    let mut value = 0_u128;
    // The digits up to `point` are whole, the rest only decide whether to round up.
    let point = int.len() as i32 + exponent;
    let mut digit = int.bytes().chain(fraction.bytes());
    for _whole in 0..point.max(0) {
        let next = digit.next().map_or(0, |it| u128::from(it - b'0'));
        value = value.checked_mul(10)?.checked_add(next)?;
    }
    value.checked_add(u128::from(digit.any(|it| it != b'0')))
}

/// The most digits read: 128 bits have 39.
const MAX_DIGITS: usize = 60;
/// The largest exponent either way; beyond it a price is nonsense.
const MAX_EXPONENT: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Option<(u128, PriceUnit)>) {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        assert_eq!(Price::read(&raw).map(|it| (it.wei, it.unit)), expected, "{json}");
    }

    #[test]
    fn prices_are_exact_and_rounded_up() {
        let seconds = |wei| Some((wei, PriceUnit::Seconds));
        check(r#"{"price":1200,"currency":"wei","unit":"seconds"}"#, seconds(1200));
        check(r#"{"price":"1200","currency":"WEI","unit":" seconds "}"#, seconds(1200));
        check(r#"{"price":0.25,"unit":"seconds"}"#, seconds(1));
        check(r#"{"price":1.5e3,"unit":"seconds"}"#, seconds(1500));
        check(r#"{"price":12e-1,"unit":"seconds"}"#, seconds(2));
        check(r#"{"price":0.0,"unit":"seconds"}"#, seconds(0));
        let large = 9_007_199_254_740_993_u128; // not a double
        check(r#"{"price":9007199254740993,"unit":"fixed"}"#, Some((large, PriceUnit::Fixed)));
        check(r#"{"price":1,"unit":"720p-pixel-seconds"}"#, Some((1, PriceUnit::PixelSeconds720p)));
        check(r#"{"price":1,"unit":"hour"}"#, Some((1, PriceUnit::Hour)));
    }

    #[test]
    fn what_is_not_a_price_is_none() {
        for price in ["-1", "true", "null", "\"\"", "\"1,2\"", "1e99", "\"+1\"", "{}"] {
            check(&format!(r#"{{"price":{price},"unit":"fixed"}}"#), None);
        }
        check(r#"{"price":1,"unit":"fixed","currency":"usd"}"#, None);
        check(r#"{"price":1,"unit":"fortnight"}"#, None);
        check(&format!(r#"{{"price":{},"unit":"fixed"}}"#, "9".repeat(40)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let found = whole(&text);
            assert!(found.is_none() || text.contains(|it: char| it.is_ascii_digit()));
        }

        #[test]
        fn integers_read_back(wei: u128) {
            assert_eq!(whole(&wei.to_string()), Some(wei));
        }
    }
}
