//! Programmed faults: what goes wrong, how often, and on which requests.

use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;

use crate::devorch::delay;

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Close the connection at once: with `all:` on accept, else as soon as a head is read.
    Refuse,
    /// Reset the connection once the request's head is read.
    ResetBeforeHead,
    /// Reset it once the answer's head is out.
    ResetAfterHead,
    /// Answer with this status.
    Status(StatusCode),
    /// Answer, but late.
    SlowHead(Duration),
    /// Never answer.
    SilentHead,
    /// Send the head and the first piece of the body, then nothing.
    SilentStream,
    /// Reset the connection after so many bytes of the body.
    CutStream(u64),
    /// Send bytes that belong to no protocol.
    Garbage,
}

/// A fault with its odds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    fault: Fault,
    all: bool,
    odds: Odds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odds {
    /// In parts per 2^32.
    Chance(u64),
    Left(u32),
}

/// Why a text is not [`Faults`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    /// Not a known fault.
    #[error(
        "{0:?} is not a fault; use refuse, reset-before-head, reset-after-head, status=503, \
         slow-head=2s, silent-head, silent-stream, cut-stream=4096 or garbage, with :0.3 (probability) \
         or :3 (count) behind it and all: in front"
    )]
    Unknown(String),
    /// More than 16 of them.
    #[error("more than {MAX_RULES} faults")]
    TooMany,
}

/// The faults in force, in order; as text separated by commas, each
/// `[all:]fault[:probability | :count]`.
///
/// A probability has a decimal point (`status=500:0.3`), a count has none (`refuse:2`).
/// Without `all:` only requests under `/apps` fail, so that checks go on succeeding. An empty
/// text is no fault at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Rule>);

/// What shall go wrong with one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// How long to wait first.
    pub slow: Duration,
    /// What else happens.
    pub fault: Option<Fault>,
}

impl Faults {
    /// Draws what goes wrong with a request: every slow head that applies, and the first
    /// other fault that does. `words` gives one random word per rule that leaves it to chance.
    pub fn draw(&mut self, is_app: bool, mut words: impl FnMut() -> u32) -> Drawn {
        let mut drawn = Drawn::default();
        for rule in self.0.iter_mut().filter(|it| is_app || it.all) {
            // On accept already, before any request could be seen.
            if rule.all && rule.fault == Fault::Refuse {
                continue;
            }
            if !rule.odds.hit(&mut words) {
                continue;
            }
            if let Fault::SlowHead(wait) = rule.fault {
                drawn.slow = drawn.slow.max(wait);
                continue;
            }
            drawn.fault = Some(rule.fault);
            return drawn;
        }
        drawn
    }

    /// Tells whether a connection shall be refused on accept.
    pub fn draw_refusal(&mut self, mut words: impl FnMut() -> u32) -> bool {
        let refuse = |it: &&mut Rule| it.all && it.fault == Fault::Refuse;
        self.0.iter_mut().filter(refuse).any(|it| it.odds.hit(&mut words))
    }
}

impl Odds {
    fn hit(&mut self, words: &mut impl FnMut() -> u32) -> bool {
        match self {
            Self::Chance(CERTAIN) => true,
            Self::Chance(parts) => u64::from(words()) < *parts,
            Self::Left(0) => false,
            Self::Left(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl FromStr for Faults {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        let parts = text.split([',', '\n']).map(str::trim).filter(|it| !it.is_empty());
        let read = |it: &str| rule(it).ok_or_else(|| BadFault::Unknown(it.to_owned()));
        let rules: Vec<Rule> = parts.take(MAX_RULES + 1).map(read).collect::<Result<_, _>>()?;
        if rules.len() > MAX_RULES {
            return Err(BadFault::TooMany);
        }
        Ok(Self(rules))
    }
}

/// The most rules in force.
pub(crate) const MAX_RULES: usize = 16;
/// The longest slow head.
pub(crate) const MAX_SLOW: Duration = Duration::from_secs(600);
const CERTAIN: u64 = 1 << 32;

fn rule(text: &str) -> Option<Rule> {
    let (all, text) = match text.strip_prefix("all:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (fault, odds) = match text.split_once(':') {
        Some((fault, odds)) => (fault, self::odds(odds)?),
        None => (text, Odds::Chance(CERTAIN)),
    };
    let fault = match fault.split_once('=') {
        None => match fault {
            "refuse" => Fault::Refuse,
            "reset-before-head" => Fault::ResetBeforeHead,
            "reset-after-head" => Fault::ResetAfterHead,
            "silent-head" => Fault::SilentHead,
            "silent-stream" => Fault::SilentStream,
            "garbage" => Fault::Garbage,
            _ => return None,
        },
        Some(("status", code)) => {
            let code = code.parse::<StatusCode>().ok()?;
            // Below 200 is no final answer; above 599 no server sends.
            Fault::Status((200..600).contains(&code.as_u16()).then_some(code)?)
        }
        Some(("slow-head", wait)) => {
            Fault::SlowHead(delay::duration(wait).filter(|it| *it <= MAX_SLOW)?)
        }
        Some(("cut-stream", bytes)) => Fault::CutStream(bytes.parse().ok()?),
        Some(_) => return None,
    };
    Some(Rule { fault, all, odds })
}

fn odds(text: &str) -> Option<Odds> {
    if !text.contains('.') {
        return text.parse().ok().map(Odds::Left);
    }
    let chance = text.parse::<f64>().ok().filter(|it| (0.0..=1.0).contains(it))?;
    Some(Odds::Chance((chance * CERTAIN as f64) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(text: &str, is_app: bool, words: &[u32]) -> Vec<Drawn> {
        let mut faults: Faults = text.parse().unwrap();
        words.iter().map(|word| faults.draw(is_app, || *word)).collect()
    }

    #[track_caller]
    fn check(text: &str, fault: Fault) {
        assert_eq!(draws(text, true, &[0]), [Drawn { fault: Some(fault), ..Drawn::default() }]);
    }

    #[test]
    fn every_fault_has_a_name() {
        check("refuse", Fault::Refuse);
        check("reset-before-head", Fault::ResetBeforeHead);
        check("reset-after-head", Fault::ResetAfterHead);
        check("status=503", Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
        check("silent-head", Fault::SilentHead);
        check("silent-stream", Fault::SilentStream);
        check("cut-stream=4096", Fault::CutStream(4096));
        check("garbage", Fault::Garbage);
        assert_eq!(draws("slow-head=2s", true, &[0])[0].slow, Duration::from_secs(2));
    }

    #[test]
    fn checks_are_spared_unless_all_is_said() {
        assert_eq!(draws("status=500", false, &[0]), [Drawn::default()]);
        assert!(draws("all:status=500", false, &[0])[0].fault.is_some());
        let mut refusing: Faults = "all:refuse:1".parse().unwrap();
        assert_eq!(refusing.draw(true, || 0), Drawn::default());
        assert!(refusing.draw_refusal(|| 0) && !refusing.draw_refusal(|| 0));
    }

    #[test]
    fn a_count_runs_out_and_a_chance_does_not() {
        let hits = |text: &str, words: &[u32]| {
            draws(text, true, words).iter().map(|it| it.fault.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(hits("refuse:2", &[0, 0, 0]), [true, true, false]);
        assert_eq!(hits("refuse:0.5", &[0, u32::MAX, 1]), [true, false, true]);
        assert_eq!(hits("refuse:1.0", &[u32::MAX]), [true]);
        assert_eq!(hits("refuse:0.0", &[0]), [false]);
        assert_eq!(hits("slow-head=1s,refuse:1,status=500", &[0, 0]), [true, true]);
    }

    #[test]
    fn what_is_no_fault_is_named() {
        for bad in ["boom", "status=99", "status=100", "slow-head=2", "refuse:-1", "refuse:1.5"] {
            assert_eq!(bad.parse::<Faults>(), Err(BadFault::Unknown(bad.to_owned())));
        }
        assert_eq!(
            vec!["refuse"; MAX_RULES + 1].join(",").parse::<Faults>(),
            Err(BadFault::TooMany)
        );
        assert!(vec!["refuse"; MAX_RULES].join(",").parse::<Faults>().is_ok());
        assert_eq!("".parse(), Ok(Faults::default()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            drop(text.parse::<Faults>());
        }
    }
}
