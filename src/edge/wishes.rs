//! What a client may say about the choice: whom it prefers, whom it rules out, until when.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::edge::refusal::ServeError;
use crate::id::OrchestratorId;
use crate::policy::Rules;

/// What the operator lets clients say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// `Portolan-Prefer: ID`, and an affinity.
    pub prefer: bool,
    /// `Portolan-Prefer: ID; only`.
    pub pin: bool,
    /// `Portolan-Exclude: ID, ID`.
    pub exclude: bool,
    /// `Portolan-Deadline: MS`.
    pub deadline: bool,
    /// `Portolan-Steer: redirect`.
    pub steer: bool,
}

/// What one client said. It narrows the choice and never widens it: the operator's rules
/// hold whatever is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Take this one while it is good enough.
    pub prefer: Option<OrchestratorId>,
    /// Take this one or nobody.
    pub only: Option<OrchestratorId>,
    /// Take none of these.
    pub never: Vec<OrchestratorId>,
    /// The longest the work may take, from its request's head on.
    pub deadline: Option<Duration>,
    /// What ties this request to those before it, hashed.
    pub affinity: Option<u64>,
}

impl Wishes {
    /// Reads the headers of a request.
    pub(crate) fn read(headers: &HeaderMap, allowed: Allowed) -> Result<Self, ServeError> {
        let mut wishes = Self::default();
        if let Some(text) = text(headers, &PREFER)? {
            let (id, rest) =
                text.split_once(';').map_or((text, ""), |(id, rest)| (id, rest.trim()));
            let id = id_of(&PREFER, id)?;
            match rest {
                "" => permit(allowed.prefer, "prefer").map(|()| wishes.prefer = Some(id))?,
                "only" => permit(allowed.pin, "pin").map(|()| wishes.only = Some(id))?,
                _ => {
                    return Err(bad(
                        &PREFER,
                        "write an orchestrator's id, and \"; only\" to pin it",
                    ));
                }
            }
        }
        if let Some(text) = text(headers, &EXCLUDE)? {
            permit(allowed.exclude, "exclude")?;
            for id in text.split(',') {
                if wishes.never.len() == EXCLUDED_MAX {
                    return Err(bad(&EXCLUDE, "name at most 32 orchestrators"));
                }
                wishes.never.push(id_of(&EXCLUDE, id)?);
            }
        }
        if let Some(text) = text(headers, &DEADLINE)? {
            permit(allowed.deadline, "deadline")?;
            let ms = text.trim().parse::<u32>().ok().filter(|ms| *ms > 0);
            let ms = ms.ok_or_else(|| bad(&DEADLINE, "write whole milliseconds, at least 1"))?;
            wishes.deadline = Some(Duration::from_millis(ms.into()));
        }
        if let Some(text) = text(headers, &AFFINITY)? {
            permit(allowed.prefer, "prefer")?;
            if text.is_empty() || text.len() > AFFINITY_MAX {
                return Err(bad(&AFFINITY, "write 1 to 128 characters"));
            }
            wishes.affinity = Some(hashed(text));
        }
        Ok(wishes)
    }

    /// Tells whether a request may be answered with the URL of a node with a better course.
    pub(crate) fn takes_redirect(
        headers: &HeaderMap,
        allowed: Allowed,
    ) -> Result<bool, ServeError> {
        let Some(text) = text(headers, &STEER)? else { return Ok(false) };
        permit(allowed.steer, "steer")?;
        match text {
            "redirect" => Ok(true),
            _ => Err(bad(&STEER, "write redirect, or leave it out")),
        }
    }

    /// Narrows what a request may use.
    pub(crate) fn narrow(&self, rules: &mut Cow<'_, Rules>) {
        if let Some(only) = self.only {
            let allowed = rules.only.as_ref().is_none_or(|it| it.contains(&only));
            rules.to_mut().only = Some(allowed.then_some(only).into_iter().collect());
        }
        if !self.never.is_empty() {
            rules.to_mut().never.extend(self.never.iter().copied());
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ServeError> {
    let value = headers.get(name).map(|it| it.to_str());
    value.transpose().map_err(|_not_text| bad(name, "write it in ASCII"))
}

fn id_of(name: &HeaderName, text: &str) -> Result<OrchestratorId, ServeError> {
    let remedy = "write ids as /v1/orchestrators and Portolan-Orchestrator show them";
    text.trim().parse().map_err(|_no_id| bad(name, remedy))
}

fn permit(allowed: bool, wish: &'static str) -> Result<(), ServeError> {
    if allowed { Ok(()) } else { Err(ServeError::WishDenied(wish)) }
}

fn bad(name: &HeaderName, remedy: &str) -> ServeError {
    ServeError::BadRequest(format!("{name}: {remedy}"))
}

/// A client's own word is not kept, only what it hashes to in this process.
fn hashed(text: &str) -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new).hash_one(text)
}

/// Whom to take while good enough.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("portolan-prefer");
/// Whom not to take.
pub(crate) const EXCLUDE: HeaderName = HeaderName::from_static("portolan-exclude");
/// How long it may take.
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static("portolan-deadline");
/// Whether to be sent to another node.
pub(crate) const STEER: HeaderName = HeaderName::from_static("portolan-steer");
/// What a request belongs to.
pub(crate) const AFFINITY: HeaderName = HeaderName::from_static("portolan-affinity");
const EXCLUDED_MAX: usize = 32;
const AFFINITY_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed =
        Allowed { prefer: true, pin: true, exclude: true, deadline: true, steer: true };
    const ID: &str = "00000000000000ab";

    fn read(name: HeaderName, value: &str, allowed: Allowed) -> Result<Wishes, ServeError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Wishes::read(&headers, allowed)
    }

    #[test]
    fn each_wish_is_read_where_it_is_allowed() {
        let id: OrchestratorId = ID.parse().unwrap();
        assert_eq!(read(PREFER, ID, ALL).unwrap().prefer, Some(id));
        assert_eq!(read(PREFER, &format!("{ID}; only"), ALL).unwrap().only, Some(id));
        assert_eq!(read(EXCLUDE, &format!("{ID}, {ID}"), ALL).unwrap().never, [id, id]);
        assert_eq!(read(DEADLINE, "250", ALL).unwrap().deadline, Some(Duration::from_millis(250)));
        assert!(read(AFFINITY, "user-7", ALL).unwrap().affinity.is_some());
        let none =
            Allowed { prefer: false, pin: false, exclude: false, deadline: false, steer: false };
        for (name, value) in [(PREFER, ID), (EXCLUDE, ID), (DEADLINE, "1"), (AFFINITY, "x")] {
            assert!(
                matches!(read(name.clone(), value, none), Err(ServeError::WishDenied(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_remedy() {
        for (name, value) in [
            (PREFER, "x"),
            (PREFER, "00000000000000ab; maybe"),
            (EXCLUDE, ","),
            (DEADLINE, "0"),
            (DEADLINE, "soon"),
        ] {
            let error = read(name.clone(), value, ALL).unwrap_err().to_string();
            assert!(error.starts_with(name.as_str()), "{error}");
        }
    }

    #[test]
    fn to_be_sent_elsewhere_is_a_wish_like_others() {
        let asked = |value: Option<&str>, steer| {
            let mut headers = HeaderMap::new();
            value.map(|it| headers.insert(STEER, it.parse().unwrap()));
            Wishes::takes_redirect(&headers, Allowed { steer, ..ALL })
        };
        assert!(!asked(None, false).unwrap());
        assert!(asked(Some("redirect"), true).unwrap());
        assert!(matches!(asked(Some("redirect"), false), Err(ServeError::WishDenied("steer"))));
        assert!(asked(Some("yes"), true).unwrap_err().to_string().contains("write redirect"));
    }

    #[test]
    fn a_wish_narrows_the_rules_and_never_widens_them() {
        let (a, b) = (OrchestratorId(1), OrchestratorId(2));
        let rules = Rules { only: Some([a].into()), ..Rules::default() };
        let wishes = Wishes { only: Some(b), never: vec![a], ..Wishes::default() };
        let mut narrowed = Cow::Borrowed(&rules);
        wishes.narrow(&mut narrowed);
        assert_eq!(narrowed.only, Some([].into()), "nobody is left");
        assert!(narrowed.never.contains(&a));
    }
}
