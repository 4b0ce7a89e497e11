//! Seeded randomness, and what a ping adds to a course.

use portolan::unit::Micros;

/// SplitMix64: the same numbers from the same seed on every machine.
#[derive(Debug)]
pub(crate) struct Draws(u64);

/// The round trips of one course, in milliseconds, as one train of pings saw them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// The mean: what a choice is judged by.
    pub(crate) mean: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
    /// The mean deviation.
    pub(crate) deviation: f64,
}

impl Draws {
    /// Starts a stream of its own for each pair of seed and purpose.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut draws = Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose << 48);
        draws.word();
        draws
    }

    /// Returns one random word.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns a number above 0, at most 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.word() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a position below `count`, which is not zero.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.word() % count as u64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Draws from the Gamma distribution of scale 1 (Marsaglia and Tsang, 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let lifted = self.gamma(shape + 1.0);
            return lifted * self.unit().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

impl Course {
    /// Draws one ping: the least, plus a Gamma of the mean and deviation seen above it,
    /// held below the most.
    pub(crate) fn ping(&self, draws: &mut Draws) -> Micros {
        let (mean, deviation) = ((self.mean - self.least).max(1e-6), self.deviation.max(1e-6));
        let above = draws.gamma((mean / deviation).powi(2)) * deviation * deviation / mean;
        Micros(((self.least + above).min(self.most) * 1000.0).round() as u64)
    }
}
