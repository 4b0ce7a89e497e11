//! Integers that know their unit.

pub mod stamp;

use std::fmt;
use std::ops::Add;
use std::sync::LazyLock;
use std::time::Duration;

/// A cost or a time in whole microseconds; saturates instead of wrapping.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Returns `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// Returns the value in milliseconds, for people.
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Returns the value times `parts` per million.
    pub fn times_ppm(self, parts: Ppm) -> Self {
        match self.0 {
            // Two numbers of 32 bits: the product fits.
            short if short < 1 << 32 => Self(short * u64::from(parts.0) / 1_000_000),
            long => Self((u128::from(long) * u128::from(parts.0) / 1_000_000) as u64),
        }
    }
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        Self::from_micros(micros.0)
    }
}

impl Add for Micros {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.as_ms())
    }
}

/// A share in parts per million; 1,000,000 is all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Ppm(pub u32);

impl Ppm {
    /// The whole.
    pub const ALL: Self = Self(1_000_000);
}

/// Returns what is left of `value` after `age_ms`, when half of it goes every `half_ms`.
///
/// Integer arithmetic throughout, within one part in 60,000 of the true curve, so that every
/// machine forgets alike, and forgetting in many small steps comes to the same. A zero
/// half-life forgets at once.
pub fn decayed(value: u64, age_ms: u64, half_ms: u64) -> u64 {
    Decay::after(age_ms, half_ms).of(value)
}

/// What an age does to values of one half-life: [`decayed`] for several values at once.
#[derive(Clone, Copy, Debug)]
pub struct Decay {
    /// Whole half-lives; 64 and more leave nothing.
    whole: u64,
    /// What the rest leaves, where 2^17 is all.
    factor: u64,
}

impl Decay {
    /// Works out an age of `age_ms` with a half-life of `half_ms`.
    #[inline]
    pub fn after(age_ms: u64, half_ms: u64) -> Self {
        let whole = age_ms.checked_div(half_ms).unwrap_or(64);
        if whole >= 64 {
            return Self { whole, factor: 0 };
        }
        // 2^-f = 2^(1-f) / 2, with the fraction of a half-life in 2^20 steps. What is
        // younger than 500 years is divided in 64 bits, in a quarter of the time.
        let rest = match age_ms - whole * half_ms {
            young if young < 1 << 44 => (young << 20) / half_ms,
            old => ((u128::from(old) << 20) / u128::from(half_ms)) as u64,
        };
        let (at, part) = ((((1 << 20) - rest) >> 10) as usize, ((1 << 20) - rest) & 1023);
        let (low, high) = (u64::from(EXP2[at]), u64::from(EXP2[at + 1]));
        Self { whole, factor: low + (high - low) * part / 1024 }
    }

    /// Returns what is left of `value`.
    #[inline]
    pub fn of(self, value: u64) -> u64 {
        let halved = value.checked_shr(self.whole.min(64) as u32).unwrap_or(0);
        ((u128::from(halved) * u128::from(self.factor)) >> 17) as u64
    }
}

/// Returns the binary logarithm of `value` in steps of 1/1024, within one step; 0 for 0.
pub fn log2_q10(value: u64) -> i32 {
    let Some(whole) = value.checked_ilog2() else { return 0 };
    // The mantissa above its leading one, as a fraction of 2^10, then its logarithm.
    let mantissa = if whole >= 10 { value >> (whole - 10) } else { value << (10 - whole) };
    whole as i32 * 1024 + i32::from(LOG2[(mantissa & 1023) as usize])
}

/// Returns `value` times two to the power of `steps` / 1024; saturates.
pub fn scaled(value: u64, steps: i32) -> u64 {
    if value == 0 {
        return 0;
    }
    let (whole, part) = (steps.div_euclid(1024), steps.rem_euclid(1024) as usize);
    // A round trip and a usual factor fit into 64 bits, in a third of the time.
    if value < 1 << 40 && (-16..16).contains(&whole) {
        return (value * u64::from(EXP2[part])) >> (16 - whole);
    }
    // Below 2^82; sixteen of its bits are the fraction of the table.
    let product = u128::from(value) * u128::from(EXP2[part]);
    let shift = whole - 16;
    let shifted = match shift.unsigned_abs() {
        by if shift >= 0 && by > product.leading_zeros() => u128::MAX,
        by if shift >= 0 => product << by,
        by => product.checked_shr(by).unwrap_or(0),
    };
    u64::try_from(shifted).unwrap_or(u64::MAX)
}

/// `1024 * log2(1 + i/1024)`, rounded.
static LOG2: LazyLock<[u16; 1024]> = LazyLock::new(|| {
    std::array::from_fn(|i| libm::round(1024.0 * libm::log2(1.0 + i as f64 / 1024.0)) as u16)
});
/// `65536 * 2^(i/1024)`, rounded; the last entry is there for who reads two neighbours. It
/// is worked out by the compiler, because every candidate of every choice reads it and would
/// ask each time whether it is there.
static EXP2: [u32; 1026] = exp2_table();

/// Multiplies the roots of two that the bits of each number name, with 2^62 as one.
const fn exp2_table() -> [u32; 1026] {
    let mut roots = [0_u128; 11];
    roots[0] = 2 << 62;
    let mut at = 1;
    while at < roots.len() {
        roots[at] = (roots[at - 1] << 62).isqrt();
        at += 1;
    }
    let mut table = [2 << 16; 1026];
    let mut i = 0;
    while i < 1024 {
        let (mut power, mut bit) = (1_u128 << 62, 1);
        while bit < roots.len() {
            if i >> (10 - bit) & 1 == 1 {
                power = (power * roots[bit]) >> 62;
            }
            bit += 1;
        }
        table[i] = ((power + (1 << 45)) >> 46) as u32;
        i += 1;
    }
    table
}

/// An ISO 3166-1 alpha-2 country code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads two ASCII letters of any case; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 2] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Self(bytes.map(|it| it.to_ascii_uppercase())))
    }

    /// Returns the two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Country {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Country {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a country is two letters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_powers_is_rounded_as_it_should_be() {
        for (i, power) in EXP2.iter().enumerate().take(1025) {
            let exact = 65536.0 * libm::exp2(i as f64 / 1024.0);
            assert_eq!(f64::from(*power), libm::round(exact), "{i}");
        }
    }

    #[test]
    fn costs_saturate() {
        assert_eq!(Micros(u64::MAX) + Micros(1), Micros(u64::MAX));
        assert_eq!(Micros(u64::MAX).times_ppm(Ppm::ALL), Micros(u64::MAX));
        assert_eq!(Micros::from_ms(3).times_ppm(Ppm(500_000)), Micros(1500));
    }

    #[test]
    fn long_and_short_numbers_meet_without_a_step() {
        let (limit, parts) = ((1 << 32) - 1, Ppm(999_999));
        assert!(Micros(limit).times_ppm(parts) <= Micros(limit + 1).times_ppm(parts));
        for steps in [-20_000, -16_384, -1, 0, 500, 16_383, 16_384] {
            let (short, long) = (scaled((1 << 40) - 1, steps), scaled(1 << 40, steps));
            assert!(short <= long && long - short <= (1 << 17), "{steps}: {short} {long}");
        }
        let limit = 1 << 44;
        assert_eq!(decayed(1 << 20, limit - 1, limit * 4), decayed(1 << 20, limit, limit * 4));
    }

    #[test]
    fn forgetting_halves_and_never_rises() {
        assert_eq!(decayed(1000, 0, 100), 1000);
        assert_eq!(decayed(1000, 50, 100), 707);
        assert_eq!(decayed(1000, 100, 100), 500);
        assert_eq!(decayed(1000, 250, 100), 176);
        assert_eq!((decayed(1000, 1, 0), decayed(u64::MAX, u64::MAX, 1)), (0, 0));
        let curve: Vec<u64> = (0..2000).map(|age| decayed(1 << 40, age, 100)).collect();
        let steps = (0..1000).fold(1_u64 << 40, |left, _| decayed(left, 1, 1000));
        assert!(steps.abs_diff(1 << 39) < 1 << 33, "{steps}");
        assert!(curve.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn logarithms_and_powers_undo_each_other() {
        assert_eq!([log2_q10(0), log2_q10(1), log2_q10(2), log2_q10(1024)], [0, 0, 1024, 10_240]);
        for value in [3_u64, 999, 15_000, 123_456_789] {
            let back = scaled(1, log2_q10(value));
            assert!(back.abs_diff(value) <= value / 500 + 1, "{value} came back as {back}");
        }
        assert_eq!((scaled(1000, 1024), scaled(1000, -1024)), (2000, 500));
        assert_eq!((scaled(u64::MAX, i32::MAX), scaled(u64::MAX, i32::MIN)), (u64::MAX, 0));
        assert_eq!((scaled(0, i32::MAX), scaled(1, i32::MAX)), (0, u64::MAX));
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!(Country::parse("de").map(|it| it.to_string()), Some("DE".to_owned()));
        assert_eq!(["d", "deu", "1A", "é"].map(Country::parse), [None; 4]);
    }
}
