use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LIMITS: Limits = Limits { line_max: 8 * 1024, head_max: 64 * 1024, fields_max: 100 };

/// Offers `parts` one after the other, as a connection does whose other side never switches
/// to another protocol; returns what was passed on.
fn through<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Fault> {
    let mut screen = Screen::new(LIMITS);
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for part in parts {
        held.extend_from_slice(part);
        while !held.is_empty() {
            match screen.take(&held)? {
                0 if screen.is_undecided() => screen.decide(false),
                0 => break,
                n => passed.extend(held.drain(..n)),
            }
        }
    }
    Ok(passed)
}

#[track_caller]
fn passes(text: &str) {
    let whole = through([text.as_bytes()].into_iter());
    assert_eq!(whole.as_deref(), Ok(text.as_bytes()), "{text:?}");
    let dripped = through(text.as_bytes().chunks(1));
    assert_eq!(dripped, whole, "byte by byte: {text:?}");
}

#[track_caller]
fn refused(text: &str, fault: Fault) {
    assert_eq!(through([text.as_bytes()].into_iter()), Err(fault), "{text:?}");
    assert_eq!(through(text.as_bytes().chunks(1)), Err(fault), "byte by byte: {text:?}");
}

#[test]
fn sound_requests_pass_as_they_came() {
    passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("GET / HTTP/1.0\r\n\r\n");
    passes("\r\nGET http://a:80/x?y HTTP/1.1\r\nhost:A:80\r\n\r\n");
    passes("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    passes(&format!("{chunked}3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n"));
    passes(&format!("{chunked}0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.0\r\n\r\n"));
}

#[test]
fn what_two_servers_could_read_in_two_ways_is_refused() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for both in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: \r\n",
    ] {
        refused(&with(both), Fault::Length);
    }
    for coding in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;q=1"] {
        refused(&with(&format!("Transfer-Encoding: {coding}\r\n")), Fault::Coding);
    }
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Coding);
    refused(&with("X: a\r\n b\r\n"), Fault::Folded);
    refused(&with("Content-Length : 3\r\n"), Fault::Name);
    refused(&with("Content_Length: 3\r\n"), Fault::Name);
    refused(&with("X: a\nY: b\r\n"), Fault::LineEnd);
    refused(&with("X: a\rY: b\r\n"), Fault::LineEnd);
    refused(&with("X: a\0b\r\n"), Fault::Value);
    refused(&with("Host: a\r\n"), Fault::Host);
    refused("GET / HTTP/1.1\r\n\r\n", Fault::Host);
    refused("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Fault::Host);
    refused("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::HostDiffers);
    refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::RequestLine);
    refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Fault::Version);
    refused("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Connect);
    refused(&with("Expect: 200-ok\r\n"), Fault::Expect);
}

#[test]
fn odd_chunks_are_refused() {
    let with = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    for size in ["0x3", "+3", "-3", " 3", "3 ", "g", "", "0000000000000003"] {
        let outcome = through([with(&format!("{size}\r\nabc\r\n")).as_bytes()].into_iter());
        assert!(matches!(outcome, Err(Fault::Chunk(_))), "{size:?}: {outcome:?}");
    }
    refused(&with("3\nabc\r\n"), Fault::Chunk("its size is not hexadecimal"));
    refused(&with("3\rabc"), Fault::LineEnd);
    refused(&with("3\r\nabcd\r\n"), Fault::Chunk("it is longer than its size says"));
    refused(&with("3\r\nabc\rX"), Fault::LineEnd);
    refused(&with("3;\n\r\nabc"), Fault::Chunk("its extension has a control byte"));
    let late = Fault::Chunk("a field after it may stand in the head only");
    refused(&with("0\r\nContent-Length: 4\r\n\r\n"), late);
}

#[test]
fn what_stands_before_a_fault_of_a_body_passes_first() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (sound, fault) in [("4\r\nabc\r", "\n0\r\n\r\n"), ("3\r\nabc\r\n", "x\r\n"), ("3", "g\r\n")]
    {
        let mut screen = Screen::new(LIMITS);
        assert_eq!(screen.take(head.as_bytes()), Ok(head.len()));
        let body = format!("{sound}{fault}");
        assert_eq!(screen.take(body.as_bytes()), Ok(sound.len()), "{body:?}");
        assert!(screen.take(fault.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn a_head_is_bounded_in_every_direction() {
    let long = "x".repeat(LIMITS.line_max);
    refused(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::LineTooLong);
    let many = "X: y\r\n".repeat(LIMITS.fields_max);
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), Fault::HeadTooLong);
    let mut endless = b"GET / HTTP/1.1\r\nX: ".to_vec();
    endless.resize(LIMITS.head_max, b'y');
    assert_eq!(through([&endless[..]].into_iter()), Err(Fault::HeadTooLong));
}

#[test]
fn what_follows_a_wish_to_switch_waits_for_the_answer() {
    let asked = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    let both = [&asked[..], b"\x81\x00"].concat();
    for switched in [true, false] {
        let mut screen = Screen::new(LIMITS);
        assert_eq!(screen.take(&both), Ok(asked.len()));
        assert!(screen.is_undecided());
        screen.decide(switched);
        let rest = screen.take(&both[asked.len()..]);
        assert_eq!(rest, Ok(if switched { 2 } else { 0 }));
    }
}

/// The cases that `scripts/edge-suite` sends to a real node, as far as this module decides.
#[test]
fn every_case_of_the_edge_suite_is_judged_as_it_says() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../tests/data/http1/cases.json")).unwrap();
    assert!(cases.len() > 400);
    let judged = |bytes: &[u8], piece: usize| through(bytes.chunks(piece)).err();
    let wrong = cases.iter().filter_map(|case| {
        let bytes = bytes_of(&case["send"]);
        let whole = judged(&bytes, bytes.len());
        let is_so = match case["refused"].as_u64() {
            Some(status) => whole.is_some_and(|fault| u64::from(fault.status()) == status),
            None => whole.is_some() == case["cut"].as_bool().unwrap_or_default(),
        };
        let dripped = judged(&bytes, bytes.len().div_ceil(4096));
        (!is_so || dripped != whole)
            .then(|| format!("{whole:?}, dripped {dripped:?}: {}", case["name"]))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A text whose characters are bytes, in pieces of which some are repeated.
fn bytes_of(send: &Value) -> Vec<u8> {
    let bytes = |text: &Value| -> Vec<u8> {
        text.as_str().unwrap().chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect()
    };
    let piece = |piece: &Value| match piece.as_array() {
        Some(repeated) => bytes(&repeated[0]).repeat(repeated[1].as_u64().unwrap() as usize),
        None => bytes(piece),
    };
    send.as_array().unwrap().iter().flat_map(piece).collect()
}

proptest! {
    #[test]
    fn any_bytes_pass_or_are_refused_alike_however_they_are_cut(
        head in "(GET|POST) /[a-z]{0,3} HTTP/1\\.[01]\r\n(host: a\r\n)?((content-length|transfer-encoding|x)[ :]{1,2}[0-9a-z]{1,7}\r\n){0,3}\r\n",
        body in "[0-9a-f;\r\n]{0,24}",
        cuts in proptest::collection::vec(1..9_usize, 1..20),
    ) {
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        let whole = through([&bytes[..]].into_iter());
        let mut rest = &bytes[..];
        let mut parts = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            parts.push(part);
            rest = after;
        }
        prop_assert_eq!(through(parts.into_iter()), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(through(bytes.chunks(7)));
    }
}
