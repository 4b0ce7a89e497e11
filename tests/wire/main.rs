//! Bytes nobody meant: every kind of frame and datagram, broken in every way known, must end
//! in a message or an error, never in a panic and never in more memory than came.
//!
//! `WIRE_CASES` is the count for each kind, 2,000 without it; `WIRE_SEED` the first word of
//! the draws. `scripts/wire-fuzz` runs a million of each, optimised.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic, and says what it ran"
)]

mod golden;

use portolan::clock;
use portolan::wire::{
    FrameReader, MAX_DELTA_FRAME, MAX_LOADS, MAX_RECORDS, MAX_WAYS, Message, datagram, encode,
};

use golden::{datagrams, frames};

/// Draws words (splitmix64): the same seed gives the same bytes on every machine.
struct Draws(u64);

impl Draws {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.word() % n.max(1) as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.word() as u8).collect()
    }
}

/// Breaks `sound` in one of six ways; `others` lend bytes.
fn broken(draws: &mut Draws, sound: &[u8], others: &[Vec<u8>], head: usize) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    match draws.below(6) {
        // Bits and bytes change, most often past the head.
        0 => {
            for _ in 0..=draws.below(4) {
                let from = if draws.below(4) == 0 { 0 } else { head.min(bytes.len()) };
                if from < bytes.len() {
                    let at = from + draws.below(bytes.len() - from);
                    bytes[at] = draws.word() as u8;
                }
            }
        }
        // It ends early.
        1 => bytes.truncate(draws.below(bytes.len() + 1)),
        // It goes on as another does.
        2 => {
            let other = &others[draws.below(others.len())];
            bytes.truncate(draws.below(bytes.len() + 1));
            bytes.extend(&other[draws.below(other.len() + 1)..]);
        }
        // A head that is right, and anything behind it.
        3 => {
            bytes.truncate(head);
            let n = draws.below(64);
            bytes.extend(draws.bytes(n));
        }
        // A count or length that promises the most there is.
        4 => {
            let at = head + draws.below(bytes.len().saturating_sub(head) + 1);
            let at = at.min(bytes.len());
            bytes.splice(
                at..(at + 1).min(bytes.len()),
                [253, 255, 255, 255, 255, 255, 255, 255, 255],
            );
        }
        _ => {
            let n = draws.below(96);
            bytes = draws.bytes(n);
        }
    }
    bytes
}

/// Makes the announced length the true one, so that what is broken is reached.
fn mend_length(bytes: &mut [u8]) {
    if bytes.len() >= 8 {
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads `bytes` in pieces, and everything that comes of them twice.
fn read_frames(draws: &mut Draws, bytes: &[u8]) -> usize {
    let mut reader = FrameReader::new();
    let mut n_read = 0;
    let piece = 1 + draws.below(bytes.len() + 1);
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Ok(Some(frame)) = reader.poll() {
            n_read += 1;
            assert!(frame.size <= 4 + MAX_DELTA_FRAME, "no frame is longer than its limit");
            assert!(frame.message.n_rows() <= MAX_RECORDS.max(MAX_LOADS).max(MAX_WAYS));
            if !matches!(frame.message, Message::Unknown { .. }) {
                again(&frame.message);
            }
        }
        assert!(reader.n_held() <= bytes.len(), "no more is held than came");
    }
    n_read
}

/// What was read can be sent, and is read as the same.
fn again(message: &Message) {
    let bytes = encode(message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    let mut reader = FrameReader::new();
    reader.push(&bytes);
    assert_eq!(reader.poll().map(|it| it.map(|it| it.message)), Ok(Some(message.clone())));
}

fn read_datagram(bytes: &[u8]) -> usize {
    let Ok(Some(packet)) = datagram::unwrap(bytes) else { return 0 };
    let Ok((_gossip, members)) = datagram::read(packet) else { return 0 };
    assert!(members.len() <= packet.len(), "a member takes bytes");
    1
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |it| it.parse().unwrap_or_else(|_| panic!("{name}={it} is no number")))
}

/// Runs `one` with draws of a seed of its own for each case; a case that fails is named.
fn run(name: &str, mut one: impl FnMut(&mut Draws) -> usize) {
    let (cases, seed) = (number("WIRE_CASES", 2_000), number("WIRE_SEED", 1));
    let (begin, mut n_read) = (clock::now(), 0);
    for case in 0..cases {
        let word = Draws(seed ^ case.wrapping_mul(0x2545_f491_4f6c_dd1d)).word();
        let named = Named { name, case };
        n_read += one(&mut Draws(word));
        std::mem::forget(named);
    }
    let took = begin.elapsed().as_secs_f64();
    println!("{name:<10} {cases:>9} inputs, {n_read:>9} messages read, {took:.1} s");
    assert!(n_read > 0, "what is broken a little is still read now and then");
}

/// Says which case it was when a panic passes.
struct Named<'a> {
    name: &'a str,
    case: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("{}: case {} failed; WIRE_SEED and WIRE_CASES repeat it", self.name, self.case);
    }
}

#[test]
fn no_frame_breaks_its_reader() {
    let golden = frames();
    let all: Vec<Vec<u8>> = golden.iter().map(|(_name, bytes)| bytes.clone()).collect();
    for (name, sound) in &golden {
        run(name, |draws| {
            let mut bytes = broken(draws, sound, &all, 8);
            if draws.below(4) > 0 {
                mend_length(&mut bytes);
            }
            // Half of them follow a sound one, as on a link.
            let first = draws.below(2) == 0;
            let stream = if first { [sound.clone(), bytes].concat() } else { bytes };
            read_frames(draws, &stream)
        });
    }
}

#[test]
fn no_datagram_breaks_its_reader() {
    let golden = datagrams();
    let all: Vec<Vec<u8>> = golden.iter().map(|(_name, bytes)| bytes.clone()).collect();
    for (name, sound) in &golden {
        run(name, |draws| read_datagram(&broken(draws, sound, &all, 4)));
    }
}
