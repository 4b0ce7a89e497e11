//! Where one HTTP/1.1 request ends and the next begins, read as strictly as RFC 9112 allows.
//!
//! Sans-IO. Bytes of a client pass through a [`Screen`] before anything parses them: a head
//! passes once all of it is there and only one reading of it is possible, so that no server
//! behind this node can read it otherwise. What is ambiguous is refused, never repaired.

mod chunked;
mod head;

use chunked::Chunked;

pub use head::Fault;

/// The bounds of a [`Screen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest request line, in bytes.
    pub line_max: usize,
    /// The longest head, request line included, in bytes.
    pub head_max: usize,
    /// Header fields of one request.
    pub fields_max: usize,
}

/// The requests of one connection, followed byte by byte.
#[derive(Debug)]
pub struct Screen {
    limits: Limits,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or within a head; so many of its bytes were searched for its end in vain.
    Head { searched: usize },
    /// Within a body of known length.
    Body { left: u64, upgrade: bool },
    /// Within a chunked body.
    Chunked { chunked: Chunked, upgrade: bool },
    /// A request that asks for another protocol is whole; its answer decides what follows.
    Undecided,
    /// The other protocol is spoken.
    Switched,
}

/// How a request's body is delimited, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) body: Length,
    pub(crate) upgrade: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    Chunked,
}

impl Screen {
    /// Starts before the first request.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head { searched: 0 } }
    }

    /// Returns how many of `bytes` may be passed on. The rest is to be offered again at once,
    /// unless nothing passed: then it begins a head, or the fields after a chunked body, and
    /// waits for what comes after it. A fault is told once it stands first.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let passed = match &mut self.state {
                State::Head { searched } => {
                    match head::whole(rest, *searched, &self.limits) {
                        Ok(Some((end, framing))) => {
                            self.state = framing.begin();
                            end
                        }
                        Ok(None) => {
                            *searched = rest.len();
                            return Ok(at);
                        }
                        // What came before it is sound, and passes first.
                        Err(fault) => return if at > 0 { Ok(at) } else { Err(fault) },
                    }
                }
                State::Body { left, upgrade } => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = State::after(*upgrade);
                    }
                    n
                }
                State::Chunked { chunked, upgrade } => {
                    let n = match chunked.take(rest) {
                        Ok(n) => n,
                        // As above: its request passes first, so that somebody can answer.
                        Err(fault) => return if at > 0 { Ok(at) } else { Err(fault) },
                    };
                    if chunked.is_over() {
                        self.state = State::after(*upgrade);
                    } else if n == 0 {
                        return Ok(at);
                    }
                    n
                }
                State::Undecided => return Ok(at),
                State::Switched => rest.len(),
            };
            at += passed;
        }
        Ok(at)
    }

    /// Tells whether no byte of a further request was passed on: what comes next begins one.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Tells whether nothing may be read before an answer decided on the protocol.
    pub fn is_undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// Notes whether the answer switched to the protocol the request asked for.
    pub fn decide(&mut self, switched: bool) {
        if self.state == State::Undecided {
            self.state = if switched { State::Switched } else { State::Head { searched: 0 } };
        }
    }
}

impl State {
    fn after(upgrade: bool) -> Self {
        if upgrade { Self::Undecided } else { Self::Head { searched: 0 } }
    }
}

impl Framing {
    fn begin(self) -> State {
        let upgrade = self.upgrade;
        match self.body {
            Length::Known(0) => State::after(upgrade),
            Length::Known(left) => State::Body { left, upgrade },
            Length::Chunked => State::Chunked { chunked: Chunked::default(), upgrade },
        }
    }
}

#[cfg(test)]
mod tests;
