//! Seeded randomness: streams, and words that depend on nothing but what they are drawn for.

/// SplitMix64: the same numbers from the same seed on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// Starts a stream of its own for each pair of seed and purpose.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(word(&[seed, purpose]))
    }

    /// Returns one random word.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mixed(self.0)
    }

    /// Returns a number above 0, at most 1.
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.word())
    }

    /// Returns a number from `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns a position below `count`, which is not zero.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.word() % count as u64) as usize
    }

    /// Draws from the exponential distribution of mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Draws from the normal distribution.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Returns a word that depends on nothing but `parts`: what happens to one attempt is the
/// same whatever happened to others, so that two algorithms meet the same world.
pub(crate) fn word(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |word, part| mixed(word.wrapping_add(GOLDEN) ^ mixed(*part)))
}

/// Returns a word as a number above 0, at most 1.
pub(crate) fn unit(word: u64) -> f64 {
    ((word >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
